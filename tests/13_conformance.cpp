// The cases of 13_conformance.hpp, of three kinds of ensemble in this process: a replica alone,
// three voters whose sessions are spread over them, and a voter with two that observe; with
// sessions as they are by default, and with such as are local until they write.

#include <doctest/doctest.h>

#include <memory>
#include <vector>

#include "13_conformance.hpp"
#include "support.hpp"

namespace {

using coord::milliseconds;
using coord::seconds;
using coord::Sync;

coord::SessionOptions options_of(bool is_local) {
    coord::SessionOptions options;
    options.is_local = is_local;
    return options;
}

class Alone final : public conformance::World {
public:
    explicit Alone(bool is_local) : is_local_(is_local) {}
    Sync open() override {
        auto opened = Sync::open(replica_, options_of(is_local_), pump());
        REQUIRE(opened);
        CHECK(opened->is_local() == is_local_);
        return Sync{*opened, pump()};
    }
    void settle() override {
        for (int i = 0; i < 20; i++) poll();
    }

private:
    bool poll() {
        now_ = now_ + milliseconds(1);
        replica_.poll(now_);
        replica_.audit();
        return now_ < coord::Time{} + seconds(1000);
    }
    coord::Pump pump() {
        return [this] { return poll(); };
    }
    const bool is_local_;
    coord::MemoryStorage disk_;
    coord::Replica replica_{{}, disk_};
    coord::Time now_{1000000000};
};

class Three final : public conformance::World {
public:
    explicit Three(bool is_local, std::uint32_t voters = 3)
        : is_local_(is_local), sim_(ensemble_of(voters)) {
        REQUIRE(sim_.run_until([&] { return sim_.leader() != coord::PeerId{}; }, seconds(30)));
        settle();  // everybody is in step
    }
    Sync open() override {
        next_ = next_ % sim_.size() + 1;
        auto opened = Sync::open(sim_.replica(next_), options_of(is_local_), sim_.pump());
        REQUIRE(opened);
        const Sync zk{*opened, sim_.pump()};
        if (is_local_) REQUIRE(zk.sync());  // what others have, it has, as one that is in the log
        return zk;
    }
    void settle() override { sim_.run_for(seconds(1)); }

private:
    static coord::SimulationOptions ensemble_of(std::uint32_t voters) {
        coord::SimulationOptions options;
        options.voters = voters, options.observers = 3 - voters;
        return options;
    }
    const bool is_local_;
    coord::Simulation sim_;
    std::uint32_t next_ = 0;  // at which the last session was opened
};

}  // namespace

const std::vector<conformance::WorldKind>& conformance::worlds() {
    static const std::vector<WorldKind> kinds = {
        {"a replica alone", [] { return std::unique_ptr<World>(new Alone(false)); }},
        {"three voters", [] { return std::unique_ptr<World>(new Three(false)); }},
        {"one voter, two that observe",
         [] { return std::unique_ptr<World>(new Three(false, 1)); }},
        {"a replica alone, local", [] { return std::unique_ptr<World>(new Alone(true)); }},
        {"three voters, local", [] { return std::unique_ptr<World>(new Three(true)); }},
    };
    return kinds;
}

bool conformance::differs(const char*) { return false; }
