// What tests of the session's face stand on: a replica alone, and three voters in a simulation.
#ifndef COORD_TESTS_SESSION_RIG_HPP
#define COORD_TESTS_SESSION_RIG_HPP

#include <doctest/doctest.h>

#include "coord.hpp"

namespace session_rig {

using coord::BytesView;
using coord::milliseconds;
using coord::seconds;
using coord::Sync;
using coord::Time;

// Limits under which a few answers are all that is held at a time (R12).
inline coord::ReplicaOptions narrow(std::uint32_t path_bytes, std::uint32_t data_bytes,
                                    std::uint32_t answer_bytes) {
    coord::ReplicaOptions options;
    options.limits.path_bytes_max = path_bytes;
    options.limits.data_bytes_max = data_bytes;
    options.limits.answer_bytes_max = answer_bytes;
    return options;
}

// A standalone replica and the clock that it is polled with.
struct Alone {
    coord::MemoryStorage disk;
    coord::Replica replica;
    Time now{1000000000};
    int patience = 1000000;  // polls of all calls of one Sync

    explicit Alone(const coord::ReplicaOptions& options = {}) : replica(options, disk) {}

    void poll(coord::Duration by = milliseconds(1)) {
        now = now + by;
        replica.poll(now);
        replica.audit();
    }
    void polls(int count = 10) {
        for (int i = 0; i < count; i++) poll();
    }
    coord::Pump pump(int limit = 1000) {
        return [this, left = limit]() mutable {
            poll();
            left -= 1;
            return left > 0;
        };
    }
    Sync open(coord::Duration timeout = seconds(10)) {
        auto opened = Sync::open(replica, {timeout}, pump());
        REQUIRE(opened);
        return Sync{*opened, pump(patience)};
    }
};

// Three voters. Sessions are opened at a replica of the test's choice.
struct Ensemble {
    coord::Simulation sim;

    explicit Ensemble(const coord::SimulationOptions& options) : sim(options) {
        REQUIRE(sim.run_until([&] { return sim.leader() != coord::PeerId{}; }, seconds(30)));
        sim.run_for(seconds(1));  // everybody is in step
    }
    explicit Ensemble(std::uint64_t seed = 1) : Ensemble(options(seed)) {}
    static coord::SimulationOptions options(std::uint64_t seed) {
        coord::SimulationOptions result;
        result.seed = seed;
        return result;
    }
    Sync open(std::uint32_t at, coord::Duration timeout = seconds(4)) {
        auto opened = Sync::open(sim.replica(at), {timeout}, sim.pump());
        REQUIRE(opened);
        return Sync{*opened, sim.pump()};
    }
    std::uint32_t leader() const { return sim.leader().value; }
    // The n-th replica that does not lead, n from 0.
    std::uint32_t follower(std::uint32_t n = 0) const {
        for (std::uint32_t id = 1; id <= sim.size(); id++) {
            if (id == leader()) continue;
            if (n == 0) return id;
            n -= 1;
        }
        return 0;
    }
    bool sees(std::uint32_t at, BytesView path) {
        return sim.replica(at).tree().contains(path);
    }
};

}  // namespace session_rig

#endif  // COORD_TESTS_SESSION_RIG_HPP
