// When an unresponsive peer is tried again. The rules are in the header.
#include "core/fetch/back_off.hpp"

namespace kitsune2 {

Duration BackOffPolicy::interval(std::uint32_t index) const {
  if (index == 0) return first;
  Duration out = first;
  for (std::uint32_t i = 0; i < index && out < last; ++i) out *= 2;
  return out < last ? out : last;
}

BackOff::Verdict BackOff::on_failed(const BackOffPolicy& policy, Time begun, Time now) {
  // Nothing begins during an interval, so a request that began before its end began before its start.
  if (failures_ > 0 && begun < until_) return Verdict::ignored;
  if (failures_ >= policy.count) return Verdict::give_up;
  until_ = now + policy.interval(failures_);
  ++failures_;
  return Verdict::backed_off;
}

}  // namespace kitsune2
