// Writes a DatagramFilter as a program of classic BPF.
#include "net/udp_filter.hpp"

#include <netinet/udp.h>

#include <cstddef>
#include <cstdint>
#include <span>
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
    unless(comparison, number);
    leave();
  }
  /// Goes on where `otherwise` is called next.
  void leave() { open_.push_back(jump()); }
  void otherwise() {
    for (const std::size_t at : open_) land(at);
    open_.clear();
  }
  /// The next instruction is passed over if the comparison holds. (A comparison cannot jump further than 255.)
  void unless(unsigned comparison, std::uint32_t number) {
    add(BPF_JMP | comparison, number);
    out_.back().jt = 1;
  }
  /// The next instruction is passed over unless the comparison holds.
  void only_if(unsigned comparison, std::uint32_t number) {
    add(BPF_JMP | comparison, number);
    out_.back().jf = 1;
  }
  /// To where `land` is called with what it returns.
  std::size_t jump() {
    add(BPF_JMP | BPF_JA);
    return out_.size() - 1;
  }
  void land(std::size_t jump) { out_[jump].k = static_cast<std::uint32_t>(out_.size() - jump - 1); }
  std::vector<sock_filter> take() { return std::move(out_); }

 private:
  std::vector<sock_filter> out_;
  std::vector<std::size_t> open_;
};

using Words = std::span<const std::uint32_t>;

/// Lets in if the number at hand is one of `words`, which are in order.
void add_choice(Program& program, Words words) {
  constexpr std::size_t kInARow = 4;
  if (words.size() <= kInARow) {
    for (const std::uint32_t word : words) {
      program.only_if(BPF_JEQ | BPF_K, word);
      program.add(BPF_RET | BPF_K, kWhole);
    }
    program.leave();
    return;
  }
  const std::size_t half = words.size() / 2;
  program.unless(BPF_JGE | BPF_K, words[half]);
  const std::size_t lower = program.jump();
  add_choice(program, words.subspan(half));
  program.land(lower);
  add_choice(program, words.first(half));
}

Words words_of(const std::vector<DatagramFilter::NameBytes>& names, std::vector<std::uint32_t>& out) {
  out.clear();
  for (const DatagramFilter::NameBytes& name : names) {
    out.push_back(std::uint32_t{name[0]} << 24U | std::uint32_t{name[1]} << 16U | std::uint32_t{name[2]} << 8U |
                  name[3]);
  }
  return out;
}

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
  std::vector<std::uint32_t> words;
  for (std::size_t i = 0; i < filter.shapes().size(); ++i) {
    const DatagramFilter::Shape& shape = filter.shapes().at(i);
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
    if (filter.names()) {
      program.add(BPF_LD | BPF_W | BPF_ABS, name);
      add_choice(program, words_of(filter.names()->at(i), words));
    } else {
      program.add(BPF_RET | BPF_K, kWhole);
    }
    program.otherwise();
  }
  program.add(BPF_RET | BPF_K, 0);
  return program.take();
}

}  // namespace kitsune2::net
