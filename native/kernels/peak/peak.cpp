#include "kernels/peak/peak.h"

namespace fastcnn {

const PeakKernels& peak_kernels_scalar();
const PeakKernels& peak_kernels_avx2();
const PeakKernels& peak_kernels_avx512();
const PeakKernels& peak_kernels_avx512_vnni();
const PeakKernels& peak_kernels_avx512_emulated();

const PeakKernels& peak_kernels(Isa isa) { FASTCNN_ISA_LOOKUP(isa, peak_kernels_) }

}  // namespace fastcnn
