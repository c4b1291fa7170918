// Replicas in one process that hand each other their messages at once, for the benchmarks.
#ifndef COORD_BENCH_ENSEMBLE_HPP
#define COORD_BENCH_ENSEMBLE_HPP

#include "coord.hpp"

#include <cstdlib>
#include <ctime>
#include <memory>
#include <vector>

namespace bench {

// Hands each message over at once: the receiver copies it and looks at it in its next poll.
class DirectTransport final : public coord::Transport {
public:
    void connect(coord::PeerId self, coord::Replica* const* replicas) {
        self_ = self, replicas_ = replicas;
    }
    void send(coord::PeerId to, coord::BytesView bytes) override {
        coord::Replica* const replica = replicas_[to.value - 1];
        if (replica != nullptr) replica->receive(self_, bytes);
    }
    std::size_t message_bytes_max() const override { return 64 * 1024; }

private:
    coord::PeerId self_;
    coord::Replica* const* replicas_ = nullptr;
};

class Ensemble {
public:
    // feeds: observers hang on followers, where there are any.
    explicit Ensemble(std::uint32_t voters = 3, std::uint32_t observers = 0, bool seals = false,
                      bool is_recorded = false, bool feeds = false)
        : disks_(voters + observers), transports_(voters + observers),
          recorders_(is_recorded ? voters + observers : 0),
          replicas_(voters + observers), owned_(voters + observers) {
        coord::ReplicaOptions options;
        options.voters.clear();
        if (seals) options.ensemble_keys = {coord::Bytes(32, 'k')};
        for (std::uint32_t i = 1; i <= voters; i++) options.voters.push_back(coord::PeerId{i});
        if (feeds) options.feeders = options.voters;
        for (std::uint32_t i = 0; i < voters + observers; i++) {
            options.id = coord::PeerId{i + 1};
            options.entropy = i + 1;
            transports_[i].connect(options.id, replicas_.data());
            if (is_recorded) options.recorder = &recorders_[i];
            owned_[i].reset(new coord::Replica(options, disks_[i], transports_[i]));
            replicas_[i] = owned_[i].get();
        }
        while (leader() == nullptr || !is_serving()) turn(coord::milliseconds(10));
    }

    coord::Replica* leader() {
        for (coord::Replica* replica : replicas_) {
            if (replica == nullptr) continue;
            const coord::ReplicaStatus status = replica->status();
            if (status.role == coord::Role::leading && status.serving) return replica;
        }
        return nullptr;
    }
    // RETURNS the bytes of what was recorded, and drops it.
    std::size_t take_recordings() {
        taken_.clear();
        for (coord::Recorder& recorder : recorders_) {
            if (*recorder.ended() != 0) std::abort();
            recorder.take(taken_);
        }
        return taken_.size();
    }
    coord::Replica* follower() {
        for (coord::Replica* replica : replicas_) {
            if (replica != nullptr && replica != leader()) return replica;
        }
        return nullptr;
    }
    void kill(coord::Replica* replica) {
        for (std::size_t i = 0; i < replicas_.size(); i++) {
            if (replicas_[i] == replica) replicas_[i] = nullptr, owned_[i].reset();
        }
    }

    void turn(coord::Duration step = coord::microseconds(1)) {
        now_ = now_ + step;
        for (coord::Replica* replica : replicas_) {
            if (replica == nullptr) continue;
            if (replica == metered_) {
                poll_metered();
            } else {
                replica->poll(now_);
            }
        }
    }
    // callgrind counts what is in here: --toggle-collect='bench::Ensemble::poll_metered()'
    __attribute__((noinline)) void poll_metered() {
        const double before = thread_ns();
        metered_->poll(now_);
        metered_ns_ += thread_ns() - before;
    }
    // From here on its polls are timed, all together: the clock is read twice for each.
    void meter(coord::Replica* replica) { metered_ = replica, metered_ns_ = 0; }
    double metered_ns() const { return metered_ns_; }
    coord::Time now() const { return now_; }

    bool is_serving() const {
        bool serving = true;
        for (coord::Replica* replica : replicas_) {
            serving = serving && (replica == nullptr || replica->status().serving);
        }
        return serving;
    }
    // Whether all have the same state.
    bool is_whole() {
        bool whole = leader() != nullptr;
        for (coord::Replica* replica : replicas_) {
            if (replica == nullptr || !whole) continue;
            whole = replica->status().digest == leader()->status().digest;
        }
        return whole;
    }

private:
    static double thread_ns() {
        timespec now{};
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
        return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
    }

    std::vector<coord::MemoryStorage> disks_;
    std::vector<DirectTransport> transports_;
    std::vector<coord::Recorder> recorders_;
    coord::Bytes taken_;
    std::vector<coord::Replica*> replicas_;
    std::vector<std::unique_ptr<coord::Replica>> owned_;
    coord::Time now_;
    coord::Replica* metered_ = nullptr;
    double metered_ns_ = 0;
};

}  // namespace bench

#endif  // COORD_BENCH_ENSEMBLE_HPP
