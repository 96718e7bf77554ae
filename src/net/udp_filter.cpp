// Writes a DatagramFilter as a program of classic BPF.
#include "net/udp_filter.hpp"

#include <netinet/udp.h>

#include <cstddef>
#include <cstdint>
#include <utility>

namespace kitsune2::net {
namespace {

constexpr std::uint32_t kHeader = sizeof(udphdr);  ///< what the system shows begins with it
constexpr std::uint32_t kWhole = 0xffffffff;

class Program {
 public:
  void add(unsigned code, std::uint32_t number = 0) {
    out_.push_back({static_cast<std::uint16_t>(code), 0, 0, number});
  }
  /// Whether a comparison holds; otherwise the program goes on where `otherwise` is called next.
  void demand(unsigned comparison, std::uint32_t number) {
    open_.push_back(out_.size());
    add(BPF_JMP | comparison, number);
  }
  void otherwise() {
    for (const std::size_t at : open_) out_[at].jf = static_cast<std::uint8_t>(out_.size() - at - 1);
    open_.clear();
  }
  std::vector<sock_filter> take() { return std::move(out_); }

 private:
  std::vector<sock_filter> out_;
  std::vector<std::size_t> open_;
};

/// DatagramFilter::mark_of.
void add_mark(Program& program, const DatagramFilter::Secret& secret) {
  const auto fold = [&](unsigned bits) {
    program.add(BPF_MISC | BPF_TAX);
    program.add(BPF_ALU | BPF_RSH | BPF_K, bits);
    program.add(BPF_ALU | BPF_XOR | BPF_X);
  };
  program.add(BPF_ALU | BPF_XOR | BPF_K, secret.before);
  program.add(BPF_ALU | BPF_MUL | BPF_K, secret.by);
  fold(DatagramFilter::kFold);
  program.add(BPF_ALU | BPF_MUL | BPF_K, secret.again_by);
  fold(DatagramFilter::kFoldAgain);
  program.add(BPF_ALU | BPF_XOR | BPF_K, secret.after);
  program.add(BPF_ALU | BPF_AND | BPF_K, 0xffff);
}

}  // namespace

std::vector<sock_filter> program_of(const DatagramFilter& filter) {
  Program program;
  for (const DatagramFilter::Shape& shape : filter.shapes()) {
    const std::uint32_t name = kHeader + shape.name_at;
    program.add(BPF_LD | BPF_W | BPF_LEN);
    program.demand(BPF_JGE | BPF_K, kHeader + shape.least);
    program.add(BPF_LD | BPF_W | BPF_ABS, kHeader);
    program.add(BPF_ALU | BPF_AND | BPF_K, shape.mask);
    program.demand(BPF_JEQ | BPF_K, shape.first);
    if (shape.fifth != DatagramFilter::kAny) {
      program.add(BPF_LD | BPF_B | BPF_ABS, kHeader + 4);
      program.demand(BPF_JEQ | BPF_K, shape.fifth);
    }
    program.add(BPF_LD | BPF_W | BPF_ABS, name);
    add_mark(program, filter.secret());
    program.add(BPF_MISC | BPF_TAX);
    program.add(BPF_LD | BPF_H | BPF_ABS, name + 6);
    program.demand(BPF_JEQ | BPF_X, 0);
    program.add(BPF_RET | BPF_K, kWhole);
    program.otherwise();
  }
  program.add(BPF_RET | BPF_K, 0);
  return program.take();
}

}  // namespace kitsune2::net
