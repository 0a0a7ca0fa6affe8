// Fills packed matrices from rows of GGUF blocks: without loss where the code form fits, else by the quantiser of the
// kernels. Knows nothing of files or threads; a caller may give different tiles to different threads.
#pragma once

#include "common/arena.h"
#include "serve/blocks.h"
#include "serve/kernels.h"
#include "serve/packed.h"

namespace highrise::serve {

// The widest codes a matrix may have. kStored keeps what the file has; the others narrow what is wider than they are.
enum class WeightLimit { kStored, kInt4, kInt5, kInt6, kInt8 };
bool weight_limit_of(const char* name, WeightLimit* limit);

// Plans the packed form of a matrix and takes its memory; `data` stays nullptr when there is none.
PackedMatrix plan_packed(const Kernels& kernels, BlockType type, int64_t rows, int64_t cols, WeightLimit limit,
                         Arena& arena);
// Fills tiles [begin, end) from the whole matrix `source`.
void pack_tiles(const Kernels& kernels, BlockType type, const uint8_t* source, PackedMatrix& matrix, int64_t begin,
                int64_t end);
// One row back as floats (for embeddings and tests).
void read_packed_row(const PackedMatrix& matrix, int64_t row, float* out);

}  // namespace highrise::serve
