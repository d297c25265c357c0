#pragma once

#include <cstddef>

namespace fastcnn {

// Memory that somebody else owns.
struct Region {
  const void* data = nullptr;
  ptrdiff_t bytes = 0;
};

}  // namespace fastcnn
