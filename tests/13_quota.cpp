// Chapters 12 and 13: quotas as a client meets them, over restarts and leaders. What is counted is
// in 04_quota.cpp.

#include "session_rig.hpp"

#include <string>
#include <vector>

#include "coord.hpp"
#include "support.hpp"

namespace {

using namespace session_rig;
using coord::Bytes;
using coord::Errc;
using coord::Op;

const Bytes limits_of_app = "/zookeeper/quota/app/zookeeper_limits";
const Bytes stats_of_app = "/zookeeper/quota/app/zookeeper_stats";

Errc set_quota(const Sync& zk, const Bytes& limits) {
    return zk.multi({Op::create_with_parents(limits_of_app, limits),
                     Op::create_with_parents(stats_of_app, "")})
        .error;
}

}  // namespace

TEST_SUITE("13 quota") {

TEST_CASE("M15 both faces are refused; soft limits are counted; streams tell of no stats") {
    coord::ReplicaOptions options;
    options.change_bytes_kept = 1 << 20;
    Alone alone(options);
    const Sync zk = alone.open();
    REQUIRE(zk.create("/app", "12"));
    REQUIRE(set_quota(zk, "count=2,bytes=-1=;countHardLimit=3") == Errc::ok);
    const coord::Subscription stream =
        zk.subscribe("/zookeeper", coord::SubscribeOptions{alone.replica.status().applied});
    REQUIRE(zk.create("/app/a", "3"));
    CHECK(alone.replica.counters().over_quota == 0);
    REQUIRE(zk.create("/app/b", "4"));
    CHECK(alone.replica.counters().over_quota == 1);
    CHECK(zk.create("/app/c", "").error() == Errc::quota_exceeded);
    CHECK(alone.replica.counters().over_quota == 1);
    CHECK(zk.get(stats_of_app)->bytes == "count=3,bytes=4");
    Errc told = Errc::ok;
    zk.session().create("/app/c", "", [&](coord::Result<coord::Created> r) { told = r.error(); });
    alone.polls();
    CHECK(told == Errc::quota_exceeded);
    CHECK(zk.create_or_set("/app/b", "567"));
    CHECK(zk.remove_all("/app"));
    CHECK(zk.get(stats_of_app)->bytes == "count=0,bytes=0");
    const auto changes = stream.take();
    REQUIRE(changes);
    CHECK(changes->empty());
    CHECK(zk.remove_all("/zookeeper/quota/app"));
    CHECK(stream.take()->size() == 3);
}

TEST_CASE("a replica that starts again has its quotas, from its log and from a snapshot") {
    for (const std::uint32_t every : {1000000u, 2u}) {
        CAPTURE(every);
        coord::SimulationOptions options = Ensemble::options(every);
        options.replica.snapshot_every_entries = every;
        Ensemble ensemble(options);
        const Sync zk = ensemble.open(1);
        REQUIRE(zk.create("/app", "12"));
        REQUIRE(set_quota(zk, "countHardLimit=3") == Errc::ok);
        REQUIRE(zk.create("/app/a", "3"));
        for (const std::uint32_t id : {2u, 3u, 1u}) {
            ensemble.sim.run_for(seconds(2));
            ensemble.sim.crash(id);
            ensemble.sim.run_for(seconds(2));
            ensemble.sim.restart(id);
            ensemble.sim.run_for(seconds(4));
            const coord::Tree& tree = ensemble.sim.replica(id).tree();
            CHECK(tree.find(stats_of_app)->data == "count=2,bytes=3");
            ensemble.sim.replica(id).audit();
        }
        const Sync other = ensemble.open(2);
        REQUIRE(other.create("/app/b", ""));
        CHECK(other.create("/app/c", "").error() == Errc::quota_exceeded);
    }
}

}  // TEST_SUITE
