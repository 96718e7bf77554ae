#include <array>
#include <cstring>

#include "kitsune2/files.hpp"

namespace kitsune2::files {

namespace {

constexpr std::array<std::uint8_t, 6> kPing{'K', '2', 'F', 'N', 1, 1};
constexpr std::array<std::uint8_t, 6> kPong{'K', '2', 'F', 'N', 1, 2};

template <std::size_t N>
bool is(const Bytes& data, const std::array<std::uint8_t, N>& message) {
  return data.size() == N && std::memcmp(data.data(), message.data(), N) == 0;
}

class Handler final : public FilesHandler {
 public:
  void allow_space(SpaceId space) override { space_id_ = std::move(space); }

  Result<std::shared_ptr<SpaceHandler>> create_space(const SpaceId& space) override {
    if (space_id_.empty() || space != space_id_)
      return make_error(Errc::blocked, "only the space of this share is served here");
    return std::shared_ptr<SpaceHandler>(ear_);
  }
  void attach(std::shared_ptr<Space> space) override { ear_->space = space; }
  void on_pong(std::function<void(const Url&)> callback) override { ear_->pong = std::move(callback); }
  void ping(const Url& peer, std::function<void()> finished) override {
    const auto space = ear_->space.lock();
    if (!space) return finished();
    space->send_notify(peer, Bytes::copy_of(ByteView(kPing)),
                       [finished = std::move(finished)](const Result<void>&) { finished(); });
  }

 private:
  struct Ear : SpaceHandler {
    void recv_notify(const Url& from, const SpaceId&, Bytes data) override {
      if (is(data, kPing)) {
        // One small answer for each question, never more: nothing to gain by asking a lot.
        if (const auto at = space.lock())
          at->send_notify(from, Bytes::copy_of(ByteView(kPong)), [](const Result<void>&) {});
      } else if (is(data, kPong) && pong) {
        pong(from);
      }
    }
    // A share is what its link says: nothing else is let in.
    bool accept_offered_ops(const Url&, const SpaceId&) override { return false; }
    std::weak_ptr<Space> space;
    std::function<void(const Url&)> pong;
  };

  SpaceId space_id_;
  const std::shared_ptr<Ear> ear_ = std::make_shared<Ear>();
};

}  // namespace

std::shared_ptr<FilesHandler> FilesHandler::make() { return std::make_shared<Handler>(); }

SpaceId default_space(const AgentId& sharer) { return SpaceId::from_text("files-" + sharer.to_string().substr(0, 16)); }

}  // namespace kitsune2::files
