// Convolution of maps of bytes (kernels/int8) on the tile registers of AMX (kernels/amx/byte_tiles.h).
#pragma once

#include "kernels/amx/byte_tiles.h"
#include "kernels/int8/int8.h"

namespace fastcnn {

struct Int8AmxShape : ByteTileShape {
  ptrdiff_t out_image = 0, out_row = 0, res_image = 0, res_row = 0;  // in bytes, or in floats
};

struct Int8AmxArgs : ByteTileArgs {
  Int8Out to;  // of the first row of the first image, and the panel's first channel
};

struct Int8AmxKernels {
  Isa isa;
  bool emulated;
  void (*run)(const Int8AmxShape&, const Int8AmxArgs&);
};

// Null where there are none. The emulated instruction set has them for tests.
const Int8AmxKernels* int8_amx_kernels(Isa isa);

}  // namespace fastcnn
