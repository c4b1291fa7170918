// Three replicas in one process that hand each other their messages at once, for the benchmarks.
#ifndef COORD_BENCH_ENSEMBLE_HPP
#define COORD_BENCH_ENSEMBLE_HPP

#include "coord.hpp"

#include <cstdlib>
#include <memory>

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
    Ensemble() {
        for (std::uint32_t i = 0; i < 3; i++) {
            coord::ReplicaOptions options;
            options.id = coord::PeerId{i + 1};
            options.voters = {coord::PeerId{1}, coord::PeerId{2}, coord::PeerId{3}};
            options.entropy = i + 1;
            transports_[i].connect(options.id, replicas_);
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
    coord::Replica* follower() {
        for (coord::Replica* replica : replicas_) {
            if (replica != nullptr && replica != leader()) return replica;
        }
        return nullptr;
    }
    void kill(coord::Replica* replica) {
        for (std::size_t i = 0; i < 3; i++) {
            if (replicas_[i] == replica) replicas_[i] = nullptr, owned_[i].reset();
        }
    }

    void turn(coord::Duration step = coord::microseconds(1)) {
        now_ = now_ + step;
        for (coord::Replica* replica : replicas_) {
            if (replica != nullptr) replica->poll(now_);
        }
    }
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
    coord::MemoryStorage disks_[3];
    DirectTransport transports_[3];
    coord::Replica* replicas_[3] = {};
    std::unique_ptr<coord::Replica> owned_[3];
    coord::Time now_;
};

}  // namespace bench

#endif  // COORD_BENCH_ENSEMBLE_HPP
