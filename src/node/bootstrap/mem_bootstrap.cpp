// Bootstrap without a server: between the nodes of a process, or none at all.
#include <map>
#include <optional>
#include <utility>

#include "kitsune2/builder.hpp"
#include "transport/memory/board.hpp"

namespace kitsune2 {
namespace {

class MemBootstrap final : public Bootstrap, public std::enable_shared_from_this<MemBootstrap> {
 public:
  MemBootstrap(const ModuleContext& context, std::shared_ptr<MemoryNetwork::Board> board)
      : runtime_(*context.runtime),
        board_(std::move(board)),
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
    assert_on_strand(runtime_, "Bootstrap::put");
    if (stopped_ || !info || info->info().space != key_.second) return;
    own_[info->info().agent] = info->info().created_at;
    board_->put(key_, info, runtime_.wall_now());
  }

  void poll_now() override {
    assert_on_strand(runtime_, "Bootstrap::poll_now");
    if (!stopped_) schedule(Duration::zero());
  }

  BootstrapStatus status() const override {
    BootstrapStatus out{true, std::nullopt};
    out.listed = listed_;
    return out;
  }

  void stop(std::function<void()> done) override {
    assert_on_strand(runtime_, "Bootstrap::stop");
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
    const auto infos = board_->get(key_);
    BootstrapStatus::Listed listed;
    for (const auto& info : infos) {
      const auto own = own_.find(info->info().agent);
      if (own == own_.end()) ++listed.others;
      if (own != own_.end() && info->info().created_at == own->second) listed.has_own = true;
    }
    listed_ = listed;
    peers_->insert(infos);
    schedule(std::chrono::milliseconds(config_->current().mem_bootstrap.poll_freq_ms));
  }

  Runtime& runtime_;
  const std::shared_ptr<MemoryNetwork::Board> board_;
  std::shared_ptr<RuntimeConfig> config_;
  const MemoryNetwork::Board::Key key_;
  std::shared_ptr<PeerStore> peers_;
  std::shared_ptr<void> subscription_;
  std::map<AgentId, Timestamp> own_;  ///< agents of this node, with the created_at of their newest infos
  std::optional<BootstrapStatus::Listed> listed_;
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

std::shared_ptr<Bootstrap> make_mem_bootstrap_over(const ModuleContext& context,
                                                   const std::shared_ptr<MemoryNetwork>& network) {
  auto bootstrap = std::make_shared<MemBootstrap>(context, network->board());
  bootstrap->start();  // polls at once, because a subscription calls back when it is made
  return bootstrap;
}

std::shared_ptr<Bootstrap> make_mem_bootstrap(const ModuleContext& context) {
  static const std::shared_ptr<MemoryNetwork> everybody = MemoryNetwork::create();
  return make_mem_bootstrap_over(context, everybody);
}

std::shared_ptr<Bootstrap> make_noop_bootstrap(Runtime& runtime) { return std::make_shared<NoopBootstrap>(runtime); }

}  // namespace kitsune2
