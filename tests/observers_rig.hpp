// Ensembles with observers in a simulation: voters are 1 to n, and those who observe come after
// them.
#ifndef COORD_TESTS_OBSERVERS_RIG_HPP
#define COORD_TESTS_OBSERVERS_RIG_HPP

#include <doctest/doctest.h>

#include "coord.hpp"
#include "support.hpp"

namespace observers {

using coord::Bytes;
using coord::BytesView;
using coord::CreateMode;
using coord::PeerId;
using coord::Role;
using coord::seconds;
using coord::Simulation;
using coord::SimulationOptions;
using coord::Sync;

inline SimulationOptions of(std::uint32_t voters, std::uint32_t observers) {
    SimulationOptions options;
    options.voters = voters, options.observers = observers;
    options.seed = support::seed_or(5);
    options.replica.ensemble = 99;
    return options;
}

struct World {
    SimulationOptions options;
    Simulation sim;

    World(std::uint32_t voters, std::uint32_t observers) : World(of(voters, observers)) {}
    explicit World(const SimulationOptions& all) : options(all), sim(all) {
        REQUIRE(comes_true([&] { return all_serve(); }));
    }
    template <class Condition>
    bool comes_true(Condition&& condition, coord::Duration limit = seconds(20)) {
        return sim.run_until([&] { return condition(); }, limit);
    }
    bool serves(std::uint32_t id) {
        return sim.is_running(id) && sim.replica(id).status().serving;
    }
    bool all_serve() {
        for (std::uint32_t id = 1; id <= sim.size(); id++) {
            if (!serves(id)) return false;
        }
        return true;
    }
    Role role(std::uint32_t id) { return sim.replica(id).status().role; }
    std::uint32_t leader() { return sim.leader().value; }
    bool has_leader() { return sim.leader() != PeerId{}; }
    Sync open(std::uint32_t at, coord::Duration timeout = seconds(5)) {
        auto opened = Sync::open(sim.replica(at), {timeout}, sim.pump());
        REQUIRE(opened);
        return Sync(*opened, sim.pump());
    }
    bool sees(std::uint32_t id, BytesView path) {
        return sim.is_running(id) && sim.replica(id).tree().contains(path);
    }
    void are_alike() {
        REQUIRE(comes_true([&] {
            for (std::uint32_t id = 1; id <= sim.size(); id++) {
                if (!has_leader()) return false;
                if (sim.replica(id).machine().applied() !=
                    sim.replica(leader()).machine().applied()) {
                    return false;
                }
            }
            return true;
        }));
        for (std::uint32_t id = 1; id <= sim.size(); id++) {
            CHECK(sim.replica(id).status().digest == sim.replica(leader()).status().digest);
            sim.replica(id).audit();
        }
    }
};

// Writes until that many have gone through, whoever leads.
inline void write_some(const Sync& zk, int count, const Bytes& name = "/n-") {
    for (int i = 0; i < count; i++) {
        REQUIRE(zk.create(name, "x", CreateMode::persistent_sequential));
    }
}

}  // namespace observers

#endif  // COORD_TESTS_OBSERVERS_RIG_HPP
