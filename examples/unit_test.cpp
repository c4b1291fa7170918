// A unit test of what becomes of a lock when its holder is cut off: three replicas in one thread,
// in virtual time, with clocks that run differently, for a hundred seeds, in a moment.
//
//     g++ -std=c++17 -O1 -I. examples/unit_test.cpp -o unit_test && ./unit_test
#define COORD_IMPLEMENTATION
#include "coord.hpp"

#include <cstdio>

static bool holder_is_cut_off(std::uint64_t seed) {
    coord::SimulationOptions options;
    options.seed = seed;
    options.clocks.rate_permille_min = 980;  // one clock may run 4 % faster than another
    options.clocks.rate_permille_max = 1020;
    coord::Simulation sim{options};
    if (!sim.run_until([&] { return sim.leader().value != 0; }, coord::seconds(10))) return false;
    const std::uint32_t alices = static_cast<std::uint32_t>(seed % 3 + 1), bobs = alices % 3 + 1;
    auto alice = coord::Sync::open(sim.replica(alices), {coord::seconds(2)}, sim.pump());
    auto bob = coord::Sync::open(sim.replica(bobs), {coord::seconds(2)}, sim.pump());
    if (!alice || !bob) return false;

    coord::Lock hers{*alice, "/locks/door"}, his{*bob, "/locks/door"};
    std::uint64_t her_token = 0, his_token = 0;
    bool both = false;
    hers.acquire([&](auto grant) { her_token = grant ? grant->fencing_token : 0; });
    sim.run_for(coord::seconds(1));
    his.acquire([&](auto grant) {
        his_token = grant ? grant->fencing_token : 0;
        both = hers.is_held(sim.clock(alices));  // by her own clock, at this very moment
    });
    sim.run_for(coord::seconds(10));
    if (her_token == 0 || his_token != 0) return false;  // he waits as long as she is there

    sim.isolate(alices);
    if (!sim.run_until([&] { return his_token != 0; }, coord::seconds(30))) return false;
    return !both && sim.clock(alices) >= hers.certain_until() && his_token > her_token;
}

int main() {
    for (std::uint64_t seed = 1; seed <= 100; seed++) {
        if (!holder_is_cut_off(seed)) {
            return std::printf("wrong with seed %d\n", static_cast<int>(seed)), 1;
        }
    }
    std::printf("the second holder came after the first one's time, a hundred times\n");
    return 0;
}
