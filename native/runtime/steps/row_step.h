#pragma once

#include "runtime/step.h"

namespace fastcnn {

// A step that makes each row of its output by itself.
class RowStep : public Step {
 public:
  void rows(const RunContext& ctx, int n, int row0, int row1) const override {
    for (int y = row0; y < row1; ++y) row(ctx, n, y);
  }

  void run(const RunContext& ctx) const override {
    int64_t begin, end;
    ctx.part(static_cast<int64_t>(out.n) * out.h, begin, end);
    for (int64_t i = begin; i < end; ++i) row(ctx, i / out.h, i % out.h);
  }

 private:
  virtual void row(const RunContext& ctx, int64_t n, int64_t y) const = 0;
};

}  // namespace fastcnn
