// The cases of 13_conformance.hpp, of two kinds of ensemble in this process: a replica alone, and
// three voters whose sessions are spread over them.

#include <doctest/doctest.h>

#include <memory>
#include <vector>

#include "13_conformance.hpp"
#include "support.hpp"

namespace {

using coord::milliseconds;
using coord::seconds;
using coord::Sync;

class Alone final : public conformance::World {
public:
    Sync open() override {
        auto opened = Sync::open(replica_, {}, pump());
        REQUIRE(opened);
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
    coord::MemoryStorage disk_;
    coord::Replica replica_{{}, disk_};
    coord::Time now_{1000000000};
};

class Three final : public conformance::World {
public:
    Three() {
        REQUIRE(sim_.run_until([&] { return sim_.leader() != coord::PeerId{}; }, seconds(30)));
        settle();  // everybody is in step
    }
    Sync open() override {
        next_ = next_ % sim_.size() + 1;
        auto opened = Sync::open(sim_.replica(next_), {seconds(10)}, sim_.pump());
        REQUIRE(opened);
        return Sync{*opened, sim_.pump()};
    }
    void settle() override { sim_.run_for(seconds(1)); }

private:
    coord::Simulation sim_;
    std::uint32_t next_ = 0;  // at which the last session was opened
};

}  // namespace

const std::vector<conformance::WorldKind>& conformance::worlds() {
    static const std::vector<WorldKind> kinds = {
        {"a replica alone", [] { return std::unique_ptr<World>(new Alone); }},
        {"three voters", [] { return std::unique_ptr<World>(new Three); }},
    };
    return kinds;
}
