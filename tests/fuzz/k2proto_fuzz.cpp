// K2Proto: decoding never crashes; what is accepted is inside the message and the same after being written and read
// again.
#include "wire/k2proto.hpp"

#include "fuzz/fuzz.hpp"
#include "support/whole_messages.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes message = fuzz::input(data, size);
  const Result<wire::K2ProtoView> view = wire::decode_k2proto(message);
  if (!view) {
    K2_ASSERT(!view.error().message.empty());
    return 0;
  }
  K2_ASSERT(fuzz::inside(message, view->data));
  if (view->space) K2_ASSERT(fuzz::inside(message, *view->space));
  if (view->module) K2_ASSERT(fuzz::inside(message, *view->module) && wire::is_utf8(view->module->text()));

  Bytes again;
  switch (view->type) {
    case wire::K2WireType::preflight:
      again = wire::encode_preflight(view->data);
      break;
    case wire::K2WireType::notify:
      if (view->space) again = wire::encode_notify(SpaceId(*view->space), view->data);
      break;
    case wire::K2WireType::module:
      if (view->space && view->module) {
        again = wire::whole_module(SpaceId(*view->space), view->module->text(), view->data);
      }
      break;
    case wire::K2WireType::disconnect:
      again = wire::encode_disconnect(view->data.text());
      break;
    case wire::K2WireType::unspecified:
      break;
  }
  if (again.empty()) return 0;
  const Result<wire::K2ProtoView> second = wire::decode_k2proto(again);
  K2_ASSERT(second.has_value());
  K2_ASSERT(second->type == view->type && second->data == view->data);
  if (view->type == wire::K2WireType::module) K2_ASSERT(second->space == view->space && second->module == view->module);
  return 0;
}
