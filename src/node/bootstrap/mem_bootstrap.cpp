// Bootstrap without a server: between the nodes of one process, and none at all.
#include <algorithm>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "kitsune2/builder.hpp"

namespace kitsune2 {
namespace {

constexpr std::size_t kMaxInfos = 32;

/// What all nodes of the process have put. Shared between their threads.
class Board {
 public:
  using Key = std::pair<std::string, SpaceId>;

  static Board& instance() {
    static Board board;
    return board;
  }

  void put(const Key& key, const AgentInfoPtr& info, Timestamp now) {
    const std::lock_guard lock(mutex_);
    auto& infos = infos_[key];
    const auto known =
        std::find_if(infos.begin(), infos.end(), [&](const auto& i) { return i->info().agent == info->info().agent; });
    if (known != infos.end()) {
      if ((*known)->info().created_at > info->info().created_at) return;
      infos.erase(known);
    }
    std::erase_if(infos, [now](const auto& i) { return i->is_expired(now); });
    if (!info->info().is_tombstone) {
      if (infos.size() >= kMaxInfos) infos.erase(infos.begin() + kMaxInfos / 2);
      infos.push_back(info);
    }
    if (infos.empty()) infos_.erase(key);
  }

  std::vector<AgentInfoPtr> get(const Key& key) {
    const std::lock_guard lock(mutex_);
    const auto it = infos_.find(key);
    return it == infos_.end() ? std::vector<AgentInfoPtr>() : it->second;
  }

 private:
  std::mutex mutex_;
  std::map<Key, std::vector<AgentInfoPtr>> infos_;
};

class MemBootstrap final : public Bootstrap, public std::enable_shared_from_this<MemBootstrap> {
 public:
  explicit MemBootstrap(const ModuleContext& context)
      : runtime_(*context.runtime),
        config_(context.config),
        key_(context.config->current().mem_bootstrap.test_id, context.space),
        peers_(context.peer_store) {}
  ~MemBootstrap() override { runtime_.cancel(timer_); }

  void start() {
    subscription_ = config_->on_update("memBootstrap.pollFreqMs", [weak = weak_from_this()](const Config&) {
      if (auto self = weak.lock()) self->poll_now();
    });
  }

  void put(AgentInfoPtr info) override {
    if (!stopped_ && info && info->info().space == key_.second) Board::instance().put(key_, info, runtime_.wall_now());
  }

  void poll_now() override {
    if (!stopped_) schedule(Duration::zero());
  }

  void stop(std::function<void()> done) override {
    stopped_ = true;
    subscription_.reset();
    runtime_.cancel(timer_);
    runtime_.post(std::move(done));
  }

 private:
  void schedule(Duration wait) {
    runtime_.cancel(timer_);
    timer_ = runtime_.schedule_after(wait, [weak = weak_from_this()] {
      if (auto self = weak.lock()) self->poll();
    });
  }

  void poll() {
    peers_->insert(Board::instance().get(key_));
    schedule(std::chrono::milliseconds(config_->current().mem_bootstrap.poll_freq_ms));
  }

  Runtime& runtime_;
  std::shared_ptr<RuntimeConfig> config_;
  const Board::Key key_;
  std::shared_ptr<PeerStore> peers_;
  std::shared_ptr<void> subscription_;
  Runtime::TimerId timer_ = 0;
  bool stopped_ = false;
};

class NoopBootstrap final : public Bootstrap {
 public:
  explicit NoopBootstrap(Runtime& runtime) : runtime_(runtime) {}
  void put(AgentInfoPtr) override {}
  void poll_now() override {}
  void stop(std::function<void()> done) override { runtime_.post(std::move(done)); }

 private:
  Runtime& runtime_;
};

}  // namespace

std::shared_ptr<Bootstrap> make_mem_bootstrap(const ModuleContext& context) {
  auto bootstrap = std::make_shared<MemBootstrap>(context);
  bootstrap->start();  // polls at once: a subscription calls back when it is made
  return bootstrap;
}

std::shared_ptr<Bootstrap> make_noop_bootstrap(Runtime& runtime) { return std::make_shared<NoopBootstrap>(runtime); }

}  // namespace kitsune2
