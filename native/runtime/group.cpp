#include "runtime/group.h"

#include <algorithm>
#include <string>

namespace fastcnn {
namespace {

// Floats between the bands of a thread, so that equal ones do not start at equal addresses modulo a power of two.
constexpr size_t kSkew = 16;

void require(bool fine, const std::string& what) {
  if (!fine) throw std::invalid_argument("group: " + what);
}

bool is_band(const Tensor& t) { return t.space == Space::kBand; }

// Input rows that `count` rows of output need.
int64_t reached(const RowReach& reach, int64_t count) { return (count - 1) * reach.stride + reach.size; }

}  // namespace

bool Operands::touches_bands() const { return is_band(out) || std::any_of(in.begin(), in.end(), is_band); }

// What is in the bands of a thread: rows of the map, from the first that is kept. Rows above and below the map count.
struct Group::State {
  float* memory = nullptr;
  float* base[kMostMembers] = {};  // where row 0 is
  Rows kept[kMostMembers];
};

Group::Group(const GroupSpec& spec, const std::vector<std::unique_ptr<Step>>& steps,
             const std::vector<Operands>& operands)
    : first_(spec.first), rows_(spec.rows) {
  require(spec.first < spec.last && spec.last < steps.size() && spec.last - spec.first < kMostMembers,
          "needs two to eight steps that follow one another");
  for (size_t i = spec.first; i <= spec.last; ++i) {
    const Operands& own = operands[i];
    const std::optional<RowReach> reach = steps[i]->row_reach();
    require(reach.has_value(), "step " + std::to_string(i) + " (" + steps[i]->kernel() + ") cannot run by rows");
    members_.push_back({steps[i].get(), *reach, own.out, 0});
    require(is_band(own.out) == (i < spec.last), "only the maps between its steps are bands");
    // Positions of rows, of the map or outside it, are counted in an int.
    constexpr int64_t kMostRows = INT32_MAX / 4;
    require((own.out.h - int64_t{1}) * reach->stride + reach->size < kMostRows && reach->first > -kMostRows,
            "its rows reach too far");
    require(i == spec.last || own.out.index == static_cast<int>(i - spec.first), "bands are numbered by their writers");
    require(own.out.blocked && own.out.n == operands[spec.first].out.n, "needs blocked maps of one batch");
    for (size_t k = 0; k < own.in.size(); ++k) {
      require(is_band(own.in[k]) == (k == 0 && i > spec.first), "a band is read by the next step alone");
    }
    if (i == spec.first) continue;
    const Tensor &made = operands[i - 1].out, &read = own.in[0];
    require(read.index == made.index && read.n == made.n && read.blocks == made.blocks && read.h == made.h &&
                read.w == made.w && read.left == made.left && read.right == made.right && read.rows == made.rows &&
                read.row == made.row && read.plane == made.plane,
            "a band is read as it is written");
  }
  require(spec.rows >= 1 && spec.rows <= members_.back().out.h, "rows of a band out of range");
  int64_t rows = spec.rows;
  for (size_t j = members_.size() - 1; j-- > 0;) {
    rows = reached(members_[j + 1].reach, rows);
    require(members_[j].out.rows >= rows,
            "a band has room for " + std::to_string(members_[j].out.rows) + " rows and needs " + std::to_string(rows));
  }
  for (size_t j = 0; j + 1 < members_.size(); ++j) {
    members_[j].memory = static_cast<ptrdiff_t>(floats_);
    const size_t floats = static_cast<size_t>(members_[j].out.plane) * static_cast<size_t>(members_[j].out.blocks);
    floats_ += (floats + kSkew - 1) / kSkew * kSkew + kSkew;
  }
  // Members do not wait for other threads, which may run another one: no scratch can be shared out by thread numbers.
  scratch_ = floats_;
  size_t scratch = 0;
  for (const Member& member : members_) scratch = std::max(scratch, member.step->scratch_floats(1));
  floats_ += (scratch + kSkew - 1) / kSkew * kSkew;
}

void Group::run(const RunContext& ctx, float* memory, StepClock& clock) const {
  State state;
  state.memory = memory;
  RunContext own = ctx;
  own.bands = state.base;
  own.scratch = memory + scratch_;
  own.barrier = nullptr;
  own.thread = 0;
  own.threads = 1;
  const Tensor& out = members_.back().out;
  if (out.n % ctx.threads == 0) {
    int64_t begin, end;
    ctx.part(out.n, begin, end);
    for (int64_t n = begin; n < end; ++n) image(own, state, static_cast<int>(n), 0, out.h, clock);
    return;
  }
  int64_t row0, row1;
  ctx.part(out.h, row0, row1);
  for (int n = 0; n < out.n && row0 < row1; ++n) {
    image(own, state, n, static_cast<int>(row0), static_cast<int>(row1), clock);
  }
}

void Group::image(const RunContext& ctx, State& state, int n, int row0, int row1, StepClock& clock) const {
  for (Rows& kept : state.kept) kept = {};
  // Bands of equal height rather than full ones and a rest.
  const int bands = (row1 - row0 + rows_ - 1) / rows_;
  for (int b = 0; b < bands; ++b) {
    const auto cut = [&](int k) { return row0 + static_cast<int>(static_cast<int64_t>(row1 - row0) * k / bands); };
    advance(ctx, state, n, cut(b), cut(b + 1), clock);
  }
}

// Rows row0 ... row1 - 1 of the last member, and what they need of the others.
void Group::advance(const RunContext& ctx, State& state, int n, int row0, int row1, StepClock& clock) const {
  const size_t last = members_.size() - 1;
  Rows made[kMostMembers];  // what each member makes now, zeros outside its map included
  made[last] = {row0, row1};
  for (size_t j = last; j-- > 0;) {
    const Tensor& t = members_[j].out;
    const RowReach& reach = members_[j + 1].reach;
    Rows& kept = state.kept[j];
    const int begin = std::max(made[j + 1].begin, 0), end = std::min(made[j + 1].end, members_[j + 1].out.h);
    if (begin >= end) {  // the next member adds zeros at most
      made[j] = {kept.end, kept.end};
      continue;
    }
    const int need0 = begin * reach.stride + reach.first, need1 = (end - 1) * reach.stride + reach.first + reach.size;
    float* memory = state.memory + members_[j].memory;
    if (kept.begin < kept.end && need0 < kept.end) {
      const size_t move = static_cast<size_t>(kept.end - need0) * static_cast<size_t>(t.row);
      const ptrdiff_t from = static_cast<ptrdiff_t>(need0 - kept.begin) * t.row;
      for (ptrdiff_t block = 0; block < t.blocks && from > 0; ++block) {
        std::memmove(memory + block * t.plane, memory + block * t.plane + from, move * sizeof(float));
      }
      made[j] = {kept.end, std::max(need1, kept.end)};
    } else {
      made[j] = {need0, need1};
    }
    kept = {need0, made[j].end};
    state.base[j] = memory - static_cast<ptrdiff_t>(need0) * t.row;
  }
  for (size_t j = 0; j <= last; ++j) {
    const Member& member = members_[j];
    const int begin = std::max(made[j].begin, 0), end = std::min(made[j].end, member.out.h);
    if (begin < end) member.step->rows(ctx, n, begin, end);
    if (j < last && made[j].begin < made[j].end) clear_outside(state.base[j], member.out, made[j], begin, end);
    clock.charge(first_ + j);
  }
}

// Zeroes the rows of `made` that are not in the map, and the columns left and right of those that are.
void Group::clear_outside(float* base, const Tensor& t, const Rows& made, int begin, int end) {
  const size_t left = static_cast<size_t>(t.left * t.pixel), right = static_cast<size_t>(t.right * t.pixel);
  for (ptrdiff_t block = 0; block < t.blocks; ++block) {
    for (int y = made.begin; y < made.end; ++y) {
      float* row = base + block * t.plane + static_cast<ptrdiff_t>(y) * t.row;
      if (y < begin || y >= end) {
        std::memset(row, 0, static_cast<size_t>(t.row) * sizeof(float));
      } else {
        std::memset(row, 0, left * sizeof(float));
        std::memset(row + t.row - right, 0, right * sizeof(float));
      }
    }
  }
}

}  // namespace fastcnn
