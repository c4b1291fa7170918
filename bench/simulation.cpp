// Simulated seconds per second of CPU: three idle replicas, three that write, and five that write
// while messages are lost, repeated and reordered.
//
// The reference is real time: what the same wait would cost a test that sleeps.
//
// usage: bench_simulation [--quick]
#include "coord.hpp"
#include "measure.hpp"

#include <memory>

namespace {

coord::Session open_at(coord::Simulation& simulation, std::uint32_t replica) {
    coord::Result<coord::Session> session =
        coord::Sync::open(simulation.replica(replica), {}, simulation.pump());
    if (!session) std::abort();
    return *session;
}

// A client that sets its node, again when the answer comes, `gap` later.
struct Client {
    coord::Simulation& simulation;
    coord::Session session;
    coord::Duration gap;
    std::uint64_t done = 0;

    void set() {
        session.set("/node", "a value of some length", [this](coord::Result<coord::Stat>) {
            done += 1;
            simulation.after(gap, [this] { set(); });
        });
    }
};

double speed(std::uint32_t voters, std::size_t clients, bool faults, coord::Duration length) {
    coord::SimulationOptions options;
    options.voters = voters;
    options.seed = 7;
    if (faults) {
        options.network.loss_permille = 20;
        options.network.repeat_permille = 20;
        options.network.delay_permille = 50;
    }
    coord::Simulation simulation(options);
    if (!simulation.run_until([&] { return simulation.leader() != coord::PeerId{}; },
                              coord::seconds(60))) {
        std::abort();
    }
    std::vector<std::unique_ptr<Client>> working;
    for (std::size_t i = 0; i < clients; i++) {
        const std::uint32_t replica = static_cast<std::uint32_t>(i % voters) + 1;
        working.emplace_back(new Client{simulation, open_at(simulation, replica),
                                        coord::milliseconds(100)});
        if (i == 0) working[0]->session.create("/node", "", {});
        working.back()->set();
    }
    const double start = measure::cpu_seconds();
    simulation.run_for(length);
    const double spent = measure::cpu_seconds() - start;
    for (const auto& client : working) {
        if (client->done == 0) std::abort();
    }
    return static_cast<double>(length.ns) / 1e9 / spent;
}

void report(const char* label, std::uint32_t voters, std::size_t clients, bool faults,
            coord::Duration length, int repeats) {
    measure::Spread spread;
    for (int i = 0; i < repeats; i++) spread.add(speed(voters, clients, faults, length));
    measure::print_row(label, spread);
}

}  // namespace

int main(int argc, char** argv) {
    const bool quick = measure::is_quick(argc, argv);
    const int repeats = quick ? 2 : 7;
    const coord::Duration idle = coord::seconds(quick ? 600 : 36000);
    const coord::Duration busy = coord::seconds(quick ? 30 : 600);
    measure::print_head("simulation", "simulated seconds a second of CPU");
    report("3 voters, idle", 3, 0, false, idle, repeats);
    report("3 voters, 10 clients, 100 writes/s", 3, 10, false, busy, repeats);
    report("5 voters, 10 clients, lossy network", 5, 10, true, busy, repeats);
    return 0;
}
