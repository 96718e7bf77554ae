// Runs filters of sockets as the system does, so that what they let in can be compared with what they are to let in.
#pragma once

#include <linux/filter.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kitsune2/bytes.hpp"
#include "kitsune2/error.hpp"

namespace kitsune2::test {

/// Whether the program lets in a datagram of UDP with this content. Knows what UDP filters of ours use.
inline bool runs_to_accept(const std::vector<sock_filter>& program, ByteView content) {
  constexpr std::size_t kHeader = 8;
  const std::size_t all = kHeader + content.size();
  std::uint32_t a = 0, x = 0;
  for (std::size_t at = 0; at < program.size(); ++at) {
    const sock_filter& one = program[at];
    const auto load = [&](std::size_t bytes) {
      a = 0;
      for (std::size_t i = one.k; i < one.k + bytes; ++i) a = a << 8U | (i < kHeader ? 0U : content[i - kHeader]);
    };
    const auto is_outside = [&](std::size_t bytes) { return one.k + bytes > all; };
    const auto jump = [&](bool holds) { at += holds ? one.jt : one.jf; };
    switch (one.code) {
      case BPF_LD | BPF_W | BPF_LEN:
        a = static_cast<std::uint32_t>(all);
        break;
      case BPF_LD | BPF_W | BPF_ABS:
        if (is_outside(4)) return false;
        load(4);
        break;
      case BPF_LD | BPF_H | BPF_ABS:
        if (is_outside(2)) return false;
        load(2);
        break;
      case BPF_LD | BPF_B | BPF_ABS:
        if (is_outside(1)) return false;
        load(1);
        break;
      case BPF_ALU | BPF_AND | BPF_K:
        a &= one.k;
        break;
      case BPF_ALU | BPF_XOR | BPF_K:
        a ^= one.k;
        break;
      case BPF_ALU | BPF_XOR | BPF_X:
        a ^= x;
        break;
      case BPF_ALU | BPF_MUL | BPF_K:
        a *= one.k;
        break;
      case BPF_ALU | BPF_RSH | BPF_K:
        a >>= one.k;
        break;
      case BPF_MISC | BPF_TAX:
        x = a;
        break;
      case BPF_JMP | BPF_JA:
        at += one.k;
        break;
      case BPF_JMP | BPF_JGE | BPF_K:
        jump(a >= one.k);
        break;
      case BPF_JMP | BPF_JEQ | BPF_K:
        jump(a == one.k);
        break;
      case BPF_JMP | BPF_JEQ | BPF_X:
        jump(a == x);
        break;
      case BPF_RET | BPF_K:
        return one.k != 0;
      default:
        K2_ASSERT(false);
    }
  }
  K2_ASSERT(false);
  return false;
}

}  // namespace kitsune2::test
