// Test-only twin: IEEE half precision with conversions that round to nearest, ties to even.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

struct __half {
  std::uint16_t bits;
};

inline float __half2float(__half value) {
  const int exponent = value.bits >> 10 & 31;
  const int fraction = value.bits & 1023;
  const float sign = value.bits & 0x8000 ? -1.0F : 1.0F;
  if (exponent == 31) return fraction ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), -24);
  return sign * std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
}

inline __half __float2half_rn(float value) {
  const auto sign = static_cast<std::uint16_t>(std::signbit(value) ? 0x8000 : 0);
  const float size = std::fabs(value);
  if (std::isnan(value)) return {static_cast<std::uint16_t>(0x7fff)};
  if (size >= 65520.0F) return {static_cast<std::uint16_t>(sign | 0x7c00)};
  int exponent = 0;
  std::frexp(size, &exponent);                                                             // size < 2^exponent
  const int unit = std::max(exponent - 11, -24);                                           // weight of the last bit
  const auto whole = static_cast<std::uint32_t>(std::nearbyint(std::ldexp(size, -unit)));  // ties to even
  // a normal number holds 1024 to 2048 units, a subnormal one fewer than 1024 of 2^-24: adding carries into the
  // exponent
  const std::uint32_t bits = size == 0.0F ? 0 : (static_cast<std::uint32_t>(unit + 24) << 10) + whole;
  return {static_cast<std::uint16_t>(sign | bits)};
}
