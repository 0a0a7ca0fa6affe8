// What a CUDA launcher returns: zero, a positive cudaError_t, or one of our own negative codes. bind turns it into
// words.
#pragma once

namespace highrise::cuda {

using Status = int;

constexpr Status kOk = 0;
constexpr Status kUnsupportedHeadDim = -1;  // head_dim is not 64, 128 or 256
constexpr Status kBadHeads = -2;            // query heads are no multiple of the key-value heads
constexpr Status kBadGroup = -3;            // the inner dimension is no multiple of 32
constexpr Status kBadSize = -4;             // a size is below 1

}  // namespace highrise::cuda
