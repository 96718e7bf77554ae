// The progress of a fetch as text.
#include "fetch_text.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "text.hpp"

namespace kitsune2::cli {

namespace {

using files::FetchProgress;
using files::FetchWait;

std::string percent(double part) {
  char buffer[16];
  std::snprintf(buffer, sizeof buffer, "%3.0f%%", std::floor(std::clamp(part, 0.0, 1.0) * 100));
  return buffer;
}

double part_of(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? 1.0 : static_cast<double>(std::min(part, whole)) / static_cast<double>(whole);
}

std::uint64_t here(const FetchProgress& p) { return std::min(p.folder.bytes, p.bytes_held + p.bytes_arriving); }

}  // namespace

void RateMeter::sample(Time now, std::uint64_t total) {
  if (total < total_) *this = RateMeter();
  const std::uint64_t came = total - total_;
  total_ = total;
  if (!begun_ && came == 0) return;
  if (!begun_ || !last_) {
    // What arrived before took an unknown time.
    begun_ = true;
    last_ = now;
    return;
  }
  const double seconds = std::chrono::duration<double>(now - *last_).count();
  if (seconds <= 0) {
    total_ -= came;
    return;
  }
  last_ = now;
  seen_seconds_ += seconds;
  const double kept = std::exp(-seconds / kMemorySeconds);
  sum_ = sum_ * kept + static_cast<double>(came) / seconds * (1 - kept);
  weight_ = weight_ * kept + (1 - kept);
}

std::optional<double> RateMeter::rate() const {
  if (seen_seconds_ < kFirstLookSeconds) return std::nullopt;
  return sum_ / weight_;
}

FetchFigures FetchMeter::look(RateMeter::Time now, const FetchProgress& progress) {
  FetchFigures out;
  out.progress = progress;
  const bool writing = progress.phase == FetchProgress::Phase::writing;
  out.waiting = !writing && progress.live_sources == 0 && progress.pending + progress.missing > 0;
  if (out.waiting) {
    coming_.pause();
    return out;
  }
  auto& meter = writing ? writing_ : coming_;
  meter.sample(now, writing ? progress.bytes_written : progress.received_bytes);
  out.rate = meter.rate();
  const std::uint64_t done = writing ? progress.bytes_written : here(progress);
  if (out.rate && *out.rate >= 1 && progress.phase != FetchProgress::Phase::finding) {
    out.seconds_left = static_cast<double>(progress.folder.bytes - std::min(progress.folder.bytes, done)) / *out.rate;
  }
  return out;
}

std::vector<std::string> fetch_lines(const FetchFigures& figures, bool with_bar) {
  const FetchProgress& p = figures.progress;
  const bool writing = p.phase == FetchProgress::Phase::writing;
  std::string why = p.wait == FetchWait::no_answer ? "waiting for an answer" : "waiting for a source";
  if (!p.wait_reason.empty()) why += ": " + p.wait_reason;
  if (p.phase == FetchProgress::Phase::finding) {
    if (figures.waiting) return {why, p.wait_reason};
    if (p.live_sources == 0) return {"looking for the share"};
    return {"asking " + std::to_string(p.live_sources) + (p.live_sources == 1 ? " source" : " sources") +
            " for the share"};
  }
  const std::uint64_t done = writing ? p.bytes_written : here(p);
  const double part = part_of(done, p.folder.bytes);
  const std::string bytes =
      human_bytes(static_cast<double>(done)) + " of " + human_bytes(static_cast<double>(p.folder.bytes));
  const std::string share = (writing ? "writing " : "") + percent(part);
  const std::string ops = std::to_string(p.ops_held) + '/' + std::to_string(p.folder.ops) + " ops";
  const std::string files = std::to_string(p.files_done) + '/' + std::to_string(p.folder.files) + " files";
  std::string missing;
  if (p.missing > 0) missing = "  " + std::to_string(p.missing) + " ops not at any source";

  std::vector<std::string> lines;
  const std::string middle = "  " + (writing ? files : ops) + "  " + bytes;
  std::string end;
  if (figures.waiting) {
    end = "  " + why;
  } else {
    if (figures.rate && *figures.rate >= 1) end += "  " + human_bytes(*figures.rate) + "/s";
    if (figures.seconds_left) end += "  " + human_time(*figures.seconds_left) + " left";
  }
  std::string sources;
  if (!writing && !figures.waiting && p.live_sources > 0) {
    sources = "  " + std::to_string(p.live_sources) + (p.live_sources == 1 ? " source" : " sources");
  }
  if (with_bar) lines.push_back(bar(part, 24) + ' ' + share + middle + end + sources + missing);
  lines.push_back(share + middle + end + sources + missing);
  lines.push_back(share + "  " + bytes + end);
  lines.push_back(share + end);
  return lines;
}

}  // namespace kitsune2::cli
