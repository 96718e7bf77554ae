// The handler of a node that shares or fetches files: the spaces that it serves, its pings, and the ids of its spaces.
#include <array>
#include <cstring>
#include <map>

#include "files/format.hpp"
#include "kitsune2/files.hpp"

namespace kitsune2::files {

namespace {

constexpr std::array<std::uint8_t, 6> kPing{'K', '2', 'F', 'N', 1, 1};
constexpr std::array<std::uint8_t, 6> kPong{'K', '2', 'F', 'N', 1, 2};

template <std::size_t N>
bool is(const Bytes& data, const std::array<std::uint8_t, N>& message) {
  return data.size() == N && std::memcmp(data.data(), message.data(), N) == 0;
}

class FilesHandlerOfSpaces final : public FilesHandler {
 public:
  void allow_space(SpaceId space) override {
    handlers_.try_emplace(std::move(space), std::make_shared<HandlerInSpace>(pong_, accepts_));
  }

  Result<std::shared_ptr<SpaceHandler>> create_space(const SpaceId& space) override {
    const auto handler = handlers_.find(space);
    if (handler == handlers_.end()) return make_error(Errc::blocked, "this space is not served here");
    return std::shared_ptr<SpaceHandler>(handler->second);
  }
  void attach(std::shared_ptr<Space> space) override {
    last_ = space;
    if (space) {
      if (const auto handler = handlers_.find(space->id()); handler != handlers_.end()) handler->second->space = space;
    } else {
      for (auto& [id, handler] : handlers_) handler->space.reset();
    }
  }
  void accept_offers(bool accept) override { *accepts_ = accept; }
  void on_pong(std::function<void(const Url&)> callback) override { *pong_ = std::move(callback); }
  void ping(const Url& peer, std::function<void()> finished) override {
    const auto space = last_.lock();
    if (!space) return finished();
    space->send_notify(peer, Bytes::copy_of(ByteView(kPing)),
                       [finished = std::move(finished)](const Result<void>&) { finished(); });
  }

 private:
  using Pong = std::shared_ptr<std::function<void(const Url&)>>;

  /// Listens and answers in one space: an answer is never sent in another space than the question.
  struct HandlerInSpace : SpaceHandler {
    HandlerInSpace(Pong callback, std::shared_ptr<bool> accepts_offers)
        : pong(std::move(callback)), accepts(std::move(accepts_offers)) {}
    void recv_notify(const Url& from, const SpaceId&, Bytes data) override {
      if (is(data, kPing)) {
        // One small answer for each question, so that nothing is gained by asking a lot.
        if (const auto at = space.lock())
          at->send_notify(from, Bytes::copy_of(ByteView(kPong)), [](const Result<void>&) {});
      } else if (is(data, kPong) && *pong) {
        (*pong)(from);
      }
    }
    bool accept_offered_ops(const Url&, const SpaceId&) override { return *accepts; }
    std::weak_ptr<Space> space;
    const Pong pong;
    const std::shared_ptr<bool> accepts;
  };

  const std::shared_ptr<bool> accepts_ = std::make_shared<bool>(false);
  const Pong pong_ = std::make_shared<std::function<void(const Url&)>>();
  std::map<SpaceId, std::shared_ptr<HandlerInSpace>> handlers_;
  std::weak_ptr<Space> last_;
};

}  // namespace

std::shared_ptr<FilesHandler> FilesHandler::make() { return std::make_shared<FilesHandlerOfSpaces>(); }

SpaceId default_space(const AgentId& sharer) { return SpaceId::from_text("files-" + sharer.to_string().substr(0, 16)); }

namespace {

/// A secret derived from the key and `about`: Ed25519 signatures are deterministic, and this one is never shown to
/// anybody. No agent info begins like `what`.
Result<OpId> derived(Ed25519LocalAgent& node, std::string_view what, ByteView about) {
  std::vector<std::uint8_t> message(what.begin(), what.end());
  message.insert(message.end(), about.begin(), about.end());
  auto signature = node.sign(AgentInfo{}, message);
  if (!signature) return signature.error();
  return op_id_of(*signature);
}

}  // namespace

Result<SpaceId> own_space(Ed25519LocalAgent& node, const OpId& root) {
  auto secret = derived(node, "kitsune2 files: space of a share, version 1\n", root.view());
  if (!secret) return secret.error();
  return SpaceId::from_text("share-" + to_base64url(secret->view().subspan(0, 16)));
}

Result<std::shared_ptr<Ed25519LocalAgent>> agent_for(const std::shared_ptr<Ed25519LocalAgent>& node,
                                                     const SpaceId& space) {
  if (space == default_space(node->agent())) return node;
  auto seed = derived(*node, "kitsune2 files: agent in a space, version 1\n", space.view());
  if (!seed) return seed.error();
  return Ed25519LocalAgent::from_seed(seed->view());
}

}  // namespace kitsune2::files
