#include "kernels/unpack/unpack.h"

namespace fastcnn {

const UnpackKernels& unpack_kernels_scalar();
const UnpackKernels& unpack_kernels_avx2();
const UnpackKernels& unpack_kernels_avx512();
const UnpackKernels& unpack_kernels_avx512_vnni();
const UnpackKernels& unpack_kernels_avx512_emulated();

const UnpackKernels& unpack_kernels(Isa isa) { FASTCNN_ISA_LOOKUP(isa, unpack_kernels_) }

}  // namespace fastcnn
