// Few distinct bit patterns in a large array: which they are, and each element as an index into them. Encoder only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fastcnn::codec {

// The distinct patterns in order of first appearance; empty if there are more than `limit` (at most 65535).
template <typename Pattern>
std::vector<Pattern> distinct(const Pattern* data, size_t count, size_t limit);

// Position of each element in `patterns`; throws invalid_argument where one is missing.
template <typename Pattern>
std::vector<uint16_t> index_of(const Pattern* data, size_t count, const Pattern* patterns, size_t pattern_count);

}  // namespace fastcnn::codec
