// What the filter of the UDP socket lets in, and the program with which the system does the same: they agree on every
// datagram. Input: the 16 bytes of the secret, and a datagram, of which a part is sent, as it is and with a marked
// name.
#include <algorithm>
#include <vector>

#include "fuzz/fuzz.hpp"
#include "net/udp_filter.hpp"
#include "support/bpf.hpp"
#include "transport/iroh/direct_packets.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes input = fuzz::input(data, size);
  if (input.size() < 16) return 0;
  const DatagramFilter filter(iroh::direct_shapes(), [&](std::span<std::uint8_t> out) {
    std::copy_n(input.data(), std::min<std::size_t>(out.size(), 16), out.begin());
  });
  const auto program = net::program_of(filter);
  const ByteView content = input.view().subspan(16);
  K2_ASSERT(test::runs_to_accept(program, content) == filter.lets_in(content));
  if (filter.lets_in(content)) K2_ASSERT(!content.empty() && (content[0] & 0x80U) == 0);
  for (const DatagramFilter::Shape& shape : filter.shapes()) {
    if (content.size() < shape.least) continue;
    std::vector<std::uint8_t> marked(content.begin(), content.end());
    filter.mark(std::span(marked).subspan(shape.name_at).first<DatagramFilter::kNameBytes>());
    K2_ASSERT(test::runs_to_accept(program, marked) == filter.lets_in(marked));
    const std::uint32_t first =
        std::uint32_t{marked[0]} << 24U | std::uint32_t{marked[1]} << 16U | std::uint32_t{marked[2]} << 8U | marked[3];
    const bool has_shape =
        (first & shape.mask) == shape.first && (shape.fifth == DatagramFilter::kAny || marked[4] == shape.fifth);
    if (has_shape) K2_ASSERT(filter.lets_in(marked));
    // Strict: a few names beside those of this datagram, and then its own, too.
    DatagramFilter::Names names;
    const auto name_at = [&](const DatagramFilter::Shape& of) {
      DatagramFilter::NameBytes name{};
      std::copy_n(marked.begin() + of.name_at, name.size(), name.begin());
      return name;
    };
    for (std::size_t i = 0; i < filter.shapes().size(); ++i) {
      if (marked.size() < filter.shapes().at(i).least) continue;
      DatagramFilter::NameBytes name = name_at(filter.shapes().at(i));
      for (std::size_t more = 0; more < input[0] % 16U; ++more) {
        name[3] = static_cast<std::uint8_t>(name[3] + 1U);
        filter.mark(name);
        names.at(i).push_back(name);
      }
    }
    // The system compares less of a name.
    const DatagramFilter without = filter.only(names);
    K2_ASSERT(!without.lets_in(marked) || test::runs_to_accept(net::program_of(without), marked));
    K2_ASSERT(!without.lets_in(marked) || filter.lets_in(marked));
    for (std::size_t i = 0; i < filter.shapes().size(); ++i) {
      if (marked.size() >= filter.shapes().at(i).least) names.at(i).push_back(name_at(filter.shapes().at(i)));
    }
    const DatagramFilter with = filter.only(names);
    K2_ASSERT(with.lets_in(marked) == filter.lets_in(marked));
    K2_ASSERT(test::runs_to_accept(net::program_of(with), marked) == with.lets_in(marked));
  }
  return 0;
}
