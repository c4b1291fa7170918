// Chapter 4: quotas. What a quota has counted is compared with the tree by Machine::audit after
// each transaction, and with numbers that are written here.

#include <doctest/doctest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "coord.hpp"
#include "machine_rig.hpp"
#include "support.hpp"

namespace {

using namespace machine;

using Parts = std::vector<std::pair<OpCode, Bytes>>;

Bytes limits_of(BytesView path) {
    return "/zookeeper/quota" + Bytes(path) + "/zookeeper_limits";
}
Bytes stats_of(BytesView path) { return "/zookeeper/quota" + Bytes(path) + "/zookeeper_stats"; }

std::pair<OpCode, Bytes> create(BytesView path, BytesView data = "",
                                CreateMode mode = CreateMode::persistent) {
    return {OpCode::create, create_body(path, data, mode)};
}
std::pair<OpCode, Bytes> with_parents(BytesView path, BytesView data = "") {
    return {OpCode::create_with_parents, with_parents_body(path, data, CreateMode::persistent)};
}
std::pair<OpCode, Bytes> set(BytesView path, BytesView data, std::int32_t version = -1) {
    return {OpCode::set, set_body(path, data, version)};
}
std::pair<OpCode, Bytes> remove_all(BytesView path) {
    return {OpCode::remove_all, remove_body(path, -1)};
}
std::pair<OpCode, Bytes> failing() { return {OpCode::check, remove_body("/nothing", -1)}; }

Errc multi(Rig& rig, SessionId session, const Parts& parts) {
    return rig.next(session, OpCode::multi, multi_body(parts)).error;
}

// As zkCli's setquota does.
Errc set_quota(Rig& rig, SessionId session, BytesView path, BytesView limits) {
    return multi(rig, session, {with_parents(limits_of(path), limits),
                                with_parents(stats_of(path), "count=0,bytes=0")});
}

Bytes stats(const Rig& rig, BytesView path) {
    const auto node = rig.machine.tree().find(stats_of(path));
    return node ? Bytes(node->data) : "none";
}

// What a hard limit of one node refuses, if the text is read so: 0 nothing, 1 a second node.
bool refuses_a_second(BytesView limits) {
    Rig rig;
    const SessionId s = rig.open(1);
    REQUIRE(rig.create(s, "/a").error == Errc::ok);
    REQUIRE(multi(rig, s, {with_parents(limits_of("/a"), limits)}) == Errc::ok);
    const Errc error = rig.create(s, "/a/b").error;
    CHECK((error == Errc::ok || error == Errc::quota_exceeded));
    return error != Errc::ok;
}

// Whether it is a quota at all, which its stats tell.
bool is_quota(BytesView limits) {
    Rig rig;
    const SessionId s = rig.open(1);
    REQUIRE(rig.create(s, "/a", "xy").error == Errc::ok);
    REQUIRE(set_quota(rig, s, "/a", limits) == Errc::ok);
    const Bytes told = stats(rig, "/a");
    CHECK((told == "count=1,bytes=2" || told == "count=0,bytes=0"));
    return told == "count=1,bytes=2";
}

}  // namespace

TEST_SUITE("04 quota") {

TEST_CASE("the texts that ZooKeeper 3.8 reads are quotas; all others are none, and harmless") {
    // Each as its StatsTrack was seen to read it.
    for (const char* const text :
         {"", "count=1,bytes=2", "count=1", "bytes=2=;byteHardLimit=3;countHardLimit=4",
          "count==5", "=5", "count=5,", ",", ",;", "count=+5", "count=-5", "count=5=6",
          "count=5,count=6", "x=1", "count=9223372036854775807", "count=-9223372036854775808",
          "count=007", "count=-0", "count=1,,bytes=2", "count=00000000000000000000000000000001"}) {
        CAPTURE(text);
        CHECK(is_quota(text));
    }
    for (const char* const text :
         {"count=", "5", ",count=5", ";;,count=1", "count= 5", "x=y", "count=9223372036854775808",
          "count=-9223372036854775809", "count=99999999999999999999999999", "count=+", "count=-",
          "a=b=c", "=", "==", "====", "= =1", "count", "count=1 ", "count=--1", "count=0x1"}) {
        CAPTURE(text);
        CHECK_FALSE(is_quota(text));
    }
    CHECK_FALSE(is_quota(BytesView("count=5\0", 8)));
    CHECK_FALSE(is_quota("count=1,\xff"));
    CHECK_FALSE(is_quota(coord::null_data));

    CHECK(refuses_a_second("countHardLimit=1"));
    CHECK(refuses_a_second("count=9,bytes=9=;byteHardLimit=9;countHardLimit=1"));
    CHECK(refuses_a_second("countHardLimit=5,countHardLimit=1"));
    CHECK(refuses_a_second("countHardLimit=0"));
    CHECK_FALSE(refuses_a_second("countHardLimit=2"));
    CHECK_FALSE(refuses_a_second("countHardLimit=-1"));
    CHECK_FALSE(refuses_a_second("countHardLimit=-9223372036854775808"));
    CHECK_FALSE(refuses_a_second("countHardLimit=9223372036854775807"));
    CHECK_FALSE(refuses_a_second("countHardLimit==1"));
    CHECK_FALSE(refuses_a_second("count=1,bytes=0"));
    CHECK_FALSE(refuses_a_second("byteHardLimit=0"));
    CHECK_FALSE(refuses_a_second("countHardLimit=1,x=y"));
}

TEST_CASE("M14 whatever makes a node come, go or change is counted; nobody hears of the stats") {
    Rig rig;
    const SessionId s = rig.open(1), t = rig.open(2);
    rig.create(s, "/a", "12");
    rig.create(s, "/a/b", "345");
    CHECK(set_quota(rig, s, "/a", "count=-1,bytes=-1") == Errc::ok);
    CHECK(stats(rig, "/a") == "count=2,bytes=5");
    const coord::Stat before = rig.machine.tree().find(stats_of("/a"))->stat;
    rig.heard.lines.clear();
    CHECK(rig.create(s, "/a/c", "6789").error == Errc::ok);
    CHECK(stats(rig, "/a") == "count=3,bytes=9");
    CHECK(rig.heard.lines ==
          Lines{"created /a/c " + std::to_string(rig.counter),
                "children /a " + std::to_string(rig.counter)});
    const auto node = rig.machine.tree().find(stats_of("/a"));
    CHECK(node->stat.version == 0);
    CHECK(node->stat.mzxid == before.mzxid);
    CHECK(node->stat.pzxid == before.pzxid);
    CHECK(node->stat.mtime_ms == before.mtime_ms);
    CHECK(node->stat.data_length == 15);

    CHECK(rig.set(s, "/a/c", "").error == Errc::ok);
    CHECK(stats(rig, "/a") == "count=3,bytes=5");
    CHECK(rig.set(s, "/a/c", "", 7).error == Errc::bad_version);
    CHECK(rig.remove(s, "/a/c").error == Errc::ok);
    CHECK(stats(rig, "/a") == "count=2,bytes=5");

    // Sessions and their ends, taking over, nodes that go by themselves.
    CHECK(rig.create(t, "/a/e", "mine", CreateMode::ephemeral).error == Errc::ok);
    CHECK(rig.create(t, "/a/f", "", CreateMode::ephemeral).error == Errc::ok);
    CHECK(stats(rig, "/a") == "count=4,bytes=9");
    CHECK(multi(rig, s, {{OpCode::take_over, take_over_body("/a/e", "z", t, 2 * 3, 2 * 5)}}) ==
          Errc::ok);
    CHECK(stats(rig, "/a") == "count=4,bytes=6");
    rig.apply(t, 0, OpCode::close_session, BytesView("\1", 1));
    CHECK(stats(rig, "/a") == "count=3,bytes=6");
    const Outcome made = rig.create(s, "/a/box", "b", CreateMode::container);
    CHECK(rig.create(s, "/a/box/x", "bb").error == Errc::ok);
    CHECK(rig.remove(s, "/a/box/x").error == Errc::ok);
    CHECK(stats(rig, "/a") == "count=4,bytes=7");
    CHECK(rig.reap("/a/box", made.zxid) == Errc::ok);
    CHECK(stats(rig, "/a") == "count=3,bytes=6");
    const Outcome ttl = rig.create(s, "/a/ttl", "t", CreateMode::persistent_with_ttl, 1);
    CHECK(stats(rig, "/a") == "count=4,bytes=7");
    rig.open(3);
    CHECK(rig.reap("/a/ttl", ttl.zxid) == Errc::ok);

    // The parts that only a multi has.
    CHECK(multi(rig, s, {{OpCode::create_or_set,
                          create_body("/a/b", "1", CreateMode::persistent)}}) == Errc::ok);
    CHECK(stats(rig, "/a") == "count=3,bytes=4");
    CHECK(multi(rig, s, {{OpCode::create_or_set,
                          create_body("/a/g", "1", CreateMode::persistent)}}) == Errc::ok);
    CHECK(multi(rig, s, {with_parents("/a/p/q/r", "7")}) == Errc::ok);
    CHECK(stats(rig, "/a") == "count=7,bytes=6");
    CHECK(multi(rig, s, {remove_all("/a")}) == Errc::ok);
    CHECK(stats(rig, "/a") == "count=0,bytes=0");
    CHECK(rig.create(s, "/a", "again").error == Errc::ok);
    CHECK(stats(rig, "/a") == "count=1,bytes=5");
    CHECK(rig.create(s, "/ab", "beside").error == Errc::ok);
    CHECK(stats(rig, "/a") == "count=1,bytes=5");
}

TEST_CASE("M15 hard limits refuse what would pass them; in ZooKeeper's order among the errors") {
    Rig rig;
    const SessionId s = rig.open(1);
    rig.create(s, "/a", "12");
    rig.create(s, "/a/b", "345");
    CHECK(set_quota(rig, s, "/a", "countHardLimit=3;byteHardLimit=8") == Errc::ok);
    CHECK(rig.create(s, "/a/c", "6789").error == Errc::quota_exceeded);
    CHECK(rig.create(s, "/a/c", "678").error == Errc::ok);
    CHECK(rig.create(s, "/a/d", "").error == Errc::quota_exceeded);
    // create: last of all.
    CHECK(rig.create(s, "/a/c", "").error == Errc::node_exists);
    CHECK(rig.create(s, "/a/x/y", "").error == Errc::no_node);
    CHECK(rig.create(s, "/a/..", "").error == Errc::bad_arguments);
    // set: behind no_node, before bad_version.
    CHECK(rig.set(s, "/a/x", "0123456789").error == Errc::no_node);
    CHECK(rig.set(s, "/a/b", "3456", 77).error == Errc::quota_exceeded);
    CHECK(rig.set(s, "/a/b", "543", 77).error == Errc::bad_version);
    CHECK(rig.set(s, "/a/b", "543").error == Errc::ok);
    CHECK(stats(rig, "/a") == "count=3,bytes=8");
    // Over a limit that was lowered: what changes nothing of it is done, what lessens it is not.
    CHECK(rig.set(s, limits_of("/a"), "byteHardLimit=1").error == Errc::ok);
    CHECK(rig.set(s, "/a/b", "5").error == Errc::quota_exceeded);
    CHECK(rig.set(s, "/a/b", "777").error == Errc::ok);
    CHECK(rig.create(s, "/a/e", "").error == Errc::ok);
    CHECK(rig.create(s, "/a/f", "1").error == Errc::quota_exceeded);
    CHECK(rig.remove(s, "/a/e").error == Errc::ok);
    CHECK(rig.remove(s, "/a/b").error == Errc::ok);
    CHECK(stats(rig, "/a") == "count=2,bytes=5");
    // Sequence numbers are not taken by what is refused.
    CHECK(rig.create(s, "/a/n-", "1", CreateMode::persistent_sequential).error ==
          Errc::quota_exceeded);
    CHECK(rig.create(s, "/a/n-", "", CreateMode::persistent_sequential).path ==
          "/a/n-0000000003");
    // A soft limit is counted, of what has been done.
    CHECK(rig.set(s, limits_of("/a"), "count=3,bytes=6").error == Errc::ok);
    CHECK(rig.machine.over_quota() == 0);
    CHECK(rig.create(s, "/a/o", "").error == Errc::ok);
    CHECK(rig.machine.over_quota() == 1);
    CHECK(rig.set(s, "/a", "123456789").error == Errc::ok);
    CHECK(rig.machine.over_quota() == 1);
    CHECK(rig.set(s, "/a", "987654321").error == Errc::ok);
    CHECK(rig.machine.over_quota() == 0);
    CHECK(multi(rig, s, {create("/a/p"), set("/a", "0123456789")}) == Errc::ok);
    CHECK(rig.machine.over_quota() == 2);
    CHECK(multi(rig, s, {create("/a/q"), failing()}) != Errc::ok);
    CHECK(rig.machine.over_quota() == 0);
    CHECK(rig.remove(s, "/a/o").error == Errc::ok);
    CHECK(rig.machine.over_quota() == 0);
}

TEST_CASE("M15 an ACL comes before a quota; who may write limits the ACL of their node says") {
    Rig rig;
    const SessionId s = rig.open(1), t = rig.open(2);
    rig.next(s, OpCode::auth, coord::Acl(0, "token", "s").bytes());
    Bytes closed = create_body("/a", "12", static_cast<CreateMode>(1 << 16));
    const coord::Acl mine = coord::Acl(31, "token", "s").add(1, "world", "anyone");
    Writer(closed).bytes(mine.bytes());
    CHECK(rig.next(s, OpCode::create, closed).error == Errc::ok);
    Bytes limits = create_body(limits_of("/a"), "byteHardLimit=2",
                               static_cast<CreateMode>(1 << 16));
    Writer(limits).bytes(mine.bytes());
    CHECK(rig.create(s, "/zookeeper/quota/a").error == Errc::ok);
    CHECK(rig.next(s, OpCode::create, limits).error == Errc::ok);
    CHECK(rig.create(t, stats_of("/a"), "").error == Errc::ok);
    CHECK(rig.set(t, "/a", "345").error == Errc::no_auth);
    CHECK(rig.set(s, "/a", "345").error == Errc::quota_exceeded);
    CHECK(rig.create(t, "/a/b", "345").error == Errc::no_auth);
    CHECK(rig.create(s, "/a/b", "345").error == Errc::quota_exceeded);
    CHECK(rig.set(t, limits_of("/a"), "").error == Errc::no_auth);
    CHECK(stats(rig, "/a") == "count=1,bytes=2");
}

TEST_CASE("M14 the deepest counts alone; where one begins or ends, nodes change their quota") {
    Rig rig;
    const SessionId s = rig.open(1);
    for (const char* const path : {"/a", "/a/b", "/a/b/c", "/a/b/c/d", "/a/bb", "/z"}) {
        CHECK(rig.create(s, path, "1").error == Errc::ok);
    }
    CHECK(set_quota(rig, s, "/a", "") == Errc::ok);
    CHECK(stats(rig, "/a") == "count=5,bytes=5");
    CHECK(set_quota(rig, s, "/a/b/c", "") == Errc::ok);
    CHECK(stats(rig, "/a") == "count=3,bytes=3");
    CHECK(stats(rig, "/a/b/c") == "count=2,bytes=2");
    CHECK(set_quota(rig, s, "/a/b", "countHardLimit=1") == Errc::ok);
    CHECK(stats(rig, "/a") == "count=2,bytes=2");
    CHECK(stats(rig, "/a/b") == "count=1,bytes=1");
    CHECK(rig.create(s, "/a/b/x").error == Errc::quota_exceeded);
    CHECK(rig.create(s, "/a/b/c/x").error == Errc::ok);
    CHECK(stats(rig, "/a/b/c") == "count=3,bytes=2");
    // Text that is none ends it as a removal does.
    CHECK(rig.set(s, limits_of("/a/b"), "?").error == Errc::ok);
    CHECK(stats(rig, "/a") == "count=3,bytes=3");
    CHECK(stats(rig, "/a/b") == "count=1,bytes=1");  // nobody counts there any more
    CHECK(rig.create(s, "/a/b/x").error == Errc::ok);
    CHECK(rig.set(s, limits_of("/a/b"), "countHardLimit=2").error == Errc::ok);
    CHECK(stats(rig, "/a/b") == "count=2,bytes=1");
    CHECK(rig.remove(s, limits_of("/a")).error == Errc::ok);
    CHECK(rig.create(s, "/a/y").error == Errc::ok);
    CHECK(stats(rig, "/a") == "count=2,bytes=2");
    CHECK(rig.remove(s, limits_of("/a/b/c")).error == Errc::ok);
    CHECK(stats(rig, "/a/b") == "count=5,bytes=3");
    // Ended and begun anew all at once, and in one multi.
    CHECK(multi(rig, s, {remove_all("/zookeeper/quota/a"),
                         with_parents(limits_of("/a/b"), "countHardLimit=5"),
                         with_parents(stats_of("/a/b"))}) == Errc::ok);
    CHECK(stats(rig, "/a/b") == "count=5,bytes=3");
    CHECK(rig.create(s, "/a/b/w").error == Errc::quota_exceeded);
}

TEST_CASE("the stats are the machine's: what is written there is overwritten, whatever it is") {
    Rig rig;
    const SessionId s = rig.open(1);
    rig.create(s, "/a", "12");
    CHECK(set_quota(rig, s, "/a", "countHardLimit=2") == Errc::ok);
    for (const char* const text :
         {"", "count=1", "count=-5,bytes=y", "count=99999999999999999999"}) {
        CAPTURE(text);
        CHECK(rig.set(s, stats_of("/a"), text).error == Errc::ok);
        CHECK(stats(rig, "/a") == "count=1,bytes=2");
    }
    CHECK(rig.machine.tree().find(stats_of("/a"))->stat.version == 4);
    CHECK(rig.set(s, stats_of("/a"), coord::null_data).error == Errc::ok);
    CHECK(stats(rig, "/a") == "count=1,bytes=2");
    // They may go, and limits are limits without them.
    CHECK(rig.remove(s, stats_of("/a")).error == Errc::ok);
    CHECK(rig.create(s, "/a/b").error == Errc::ok);
    CHECK(rig.create(s, "/a/c").error == Errc::quota_exceeded);
    CHECK(rig.create(s, stats_of("/a"), "?").error == Errc::ok);
    CHECK(stats(rig, "/a") == "count=2,bytes=2");
    // Of a path that is not there yet; and one whose node is of a session.
    CHECK(multi(rig, s, {with_parents("/zookeeper/quota/q")}) == Errc::ok);
    CHECK(rig.create(s, limits_of("/q"), "countHardLimit=1", CreateMode::ephemeral).error ==
          Errc::ok);
    CHECK(rig.create(s, "/q").error == Errc::ok);
    CHECK(rig.create(s, "/q/r").error == Errc::quota_exceeded);
    const SessionId t = rig.open(2);
    rig.apply(s, 0, OpCode::close_session, BytesView("\1", 1));
    CHECK(rig.create(t, "/q/r").error == Errc::ok);
}

TEST_CASE("no quota is on the root, in /zookeeper, or beside the nodes of quotas") {
    Rig rig;
    const SessionId s = rig.open(1);
    const Bytes one = "countHardLimit=1";
    CHECK(rig.create(s, "/zookeeper/quota/zookeeper_limits", one).error == Errc::ok);
    CHECK(multi(rig, s, {with_parents(limits_of("/zookeeper"), one)}) == Errc::ok);
    CHECK(multi(rig, s, {with_parents(limits_of("/zookeeper/quota/a"), one)}) == Errc::ok);
    CHECK(multi(rig, s, {with_parents("/zookeeper/quotas/b/zookeeper_limits", one)}) == Errc::ok);
    CHECK(multi(rig, s, {with_parents("/zookeeper/quota/b/zookeeper_limits/x", one)}) ==
          Errc::ok);
    CHECK(multi(rig, s, {with_parents("/zookeeper/quota/c/azookeeper_limits", one)}) == Errc::ok);
    for (const char* const path : {"/a", "/a/a", "/b", "/b/b", "/c", "/c/c", "/s", "/zookeeper/a",
                                   "/zookeeper/quota/a", "/zookeeper/quota/a/b"}) {
        CAPTURE(path);
        CHECK(rig.create(s, path).error == Errc::ok);
    }
    CHECK(multi(rig, s, {with_parents(limits_of("/zookeeperx"), one)}) == Errc::ok);
    CHECK(rig.create(s, "/zookeeperx").error == Errc::ok);
    CHECK(rig.create(s, "/zookeeperx/a").error == Errc::quota_exceeded);
}

TEST_CASE("a quota on more nodes than may be counted at once is too_large, and nothing happens") {
    Limits limits;
    limits.list_max = 4;
    Rig rig(limits);
    const SessionId s = rig.open(1);
    rig.create(s, "/a"), rig.create(s, "/zookeeper/quota/a");
    for (const char* const path : {"/a/1", "/a/2", "/a/3", "/a/4"}) rig.create(s, path);
    CHECK(rig.create(s, limits_of("/a"), "").error == Errc::ok);
    CHECK(rig.create(s, "/a/5").error == Errc::ok);
    CHECK(rig.set(s, limits_of("/a"), "count=6").error == Errc::ok);  // it is there already
    CHECK(rig.set(s, limits_of("/a"), "none").error == Errc::ok);
    const std::uint64_t digest = rig.machine.tree().digest();
    CHECK(rig.set(s, limits_of("/a"), "count=7").error == Errc::too_large);
    CHECK(rig.set(s, limits_of("/a"), "count=7", 0).error == Errc::bad_version);
    CHECK(rig.set(s, limits_of("/a"), "count=7", 2).error == Errc::too_large);
    CHECK(rig.machine.tree().digest() == digest);
    CHECK(rig.remove(s, limits_of("/a")).error == Errc::ok);
    CHECK(rig.create(s, limits_of("/a"), "count=7").error == Errc::too_large);
    CHECK(rig.create(s, limits_of("/a"), "not one").error == Errc::ok);
    CHECK(rig.remove(s, "/a/5").error == Errc::ok);
    CHECK(rig.set(s, limits_of("/a"), "count=7").error == Errc::ok);
    // What one transaction counts is bounded together.
    const Parts twice = {set(limits_of("/a"), "none"), set(limits_of("/a"), "count=7"),
                         set(limits_of("/a"), "none"), set(limits_of("/a"), "count=7")};
    CHECK(multi(rig, s, twice) == Errc::too_large);
    CHECK(multi(rig, s, {twice[0], twice[1]}) == Errc::ok);
}

TEST_CASE("M6 T6 each part sees what those before it have counted; and all is as it was, or none") {
    Rig rig;
    const SessionId s = rig.open(1);
    rig.create(s, "/a", "12");
    CHECK(set_quota(rig, s, "/a", "countHardLimit=3;byteHardLimit=9") == Errc::ok);
    const std::vector<Parts> undone = {
        {create("/a/b"), create("/a/c"), create("/a/d")},
        {create("/a/b", "345678"), set("/a", "1234")},
        {create("/a/b", "34"), set("/a", "1"), failing()},
        {remove_all("/zookeeper/quota/a"), create("/a/b"), create("/a/c"), create("/a/d"),
         failing()},
        {set(limits_of("/a"), "countHardLimit=9"), create("/a/b"), create("/a/c"), create("/a/d"),
         create("/a/b")},
        {set(limits_of("/a"), "none"), set("/a", "0123456789"), set(limits_of("/a"), ""),
         create("/a/b"), failing()},
        {create("/a/b"), with_parents(limits_of("/a/b"), ""), with_parents(stats_of("/a/b")),
         create("/a/b/c"), set(stats_of("/a"), "?"), failing()},
        {remove_all("/a"), with_parents("/a/b/c/d")},
    };
    for (std::size_t i = 0; i < undone.size(); i++) {
        CAPTURE(i);
        const std::uint64_t digest = rig.machine.tree().digest();
        CHECK(multi(rig, s, undone[i]) != Errc::ok);
        CHECK(rig.machine.tree().digest() == digest);
        CHECK(stats(rig, "/a") == "count=1,bytes=2");
        CHECK(rig.set(s, "/a", "0123456789").error == Errc::quota_exceeded);
    }
    CHECK(multi(rig, s, {create("/a/b"), create("/a/c"), {OpCode::remove, remove_body("/a/b", -1)},
                         create("/a/d"), set("/a", "123456789")}) == Errc::ok);
    CHECK(stats(rig, "/a") == "count=3,bytes=9");
    CHECK(multi(rig, s, {set(limits_of("/a"), "countHardLimit=4"), create("/a/e")}) == Errc::ok);
    CHECK(stats(rig, "/a") == "count=4,bytes=9");
    CHECK(multi(rig, s, {create("/a/f"), set(limits_of("/a"), "countHardLimit=9")}) ==
          Errc::quota_exceeded);
}

TEST_CASE("a state has its quotas: loaded, counted anew, and corrupt where the stats are not so") {
    Rig rig;
    const SessionId s = rig.open(1);
    rig.create(s, "/a", "12"), rig.create(s, "/a/b", "3");
    CHECK(set_quota(rig, s, "/a", "countHardLimit=3") == Errc::ok);
    CHECK(set_quota(rig, s, "/a/b", "") == Errc::ok);
    // A save that is under way has them as they were when it began.
    rig.machine.begin_save();
    const std::uint64_t digest = rig.machine.digest();
    Bytes state;
    bool is_done = rig.machine.save_slice(1, state);
    CHECK_FALSE(is_done);
    CHECK(rig.create(s, "/a/c", "4567").error == Errc::ok);
    CHECK(stats(rig, "/a") == "count=2,bytes=6");
    while (!is_done) is_done = rig.machine.save_slice(1, state);
    Rig other;
    CHECK(other.machine.load(state) == Errc::ok);
    CHECK(other.machine.digest() == digest);
    CHECK(stats(other, "/a") == "count=1,bytes=2");
    other.machine.audit();
    other.counter = rig.counter, other.cxids = {{s, rig.cxids[s] - 1}};
    CHECK(other.create(s, "/a/c", "4567").error == Errc::ok);
    CHECK(other.create(s, "/a/d").error == Errc::ok);
    CHECK(other.create(s, "/a/e").error == Errc::quota_exceeded);
    CHECK(stats(other, "/a") == "count=3,bytes=6");
    Machine fresh(Limits{}, 1);
    CHECK(other.machine.load(support::save(fresh)) == Errc::ok);
    other.machine.audit();

    // Where data may not be so long, the stats are nothing: elsewhere that is not what was saved.
    Limits few;
    few.data_bytes_max = 15;
    Rig small(few);
    const SessionId t = small.open(1);
    small.create(t, "/a", "0123456789");
    CHECK(multi(small, t, {with_parents(limits_of("/a"), ""), with_parents(stats_of("/a"))}) ==
          Errc::ok);
    CHECK(stats(small, "/a").empty());
    const Bytes empty = small.saved();
    CHECK(small.machine.load(empty) == Errc::ok);
    CHECK(rig.machine.load(empty) == Errc::corrupt);
    rig.machine.audit();
}

// The data of each node that was created or set, as a stream of changes has it.
struct Recorded final : coord::ChangeRecorder {
    std::vector<Bytes> data;
    void on_change(coord::EventType type, const coord::NodeView& node, Zxid) override {
        if (type != coord::EventType::deleted) data.emplace_back(node.data);
    }
    void hold() override {}
    void release(bool) override {}
};

TEST_CASE("who writes stats is answered, and streams are told, what is there then") {
    Rig rig;
    Recorded recorded;
    const SessionId s = rig.open(1);
    rig.create(s, "/a", "12");
    CHECK(multi(rig, s, {with_parents(limits_of("/a"), "")}) == Errc::ok);
    rig.machine.record_to(&recorded);
    CHECK(rig.create(s, stats_of("/a"), "?").stat.data_length == 15);
    CHECK(rig.set(s, stats_of("/a"), "none").stat.data_length == 15);
    for (const Bytes& data : recorded.data) CHECK(data == "count=1,bytes=2");
    CHECK(recorded.data.size() == 2);
    rig.machine.record_to(nullptr);
}

TEST_CASE("what a quota counts as it begins is work, of which a poll does so much") {
    Limits limits;
    limits.list_max = 400;
    Rig rig(limits);
    rig.audits = false;
    const SessionId s = rig.open(1);
    rig.create(s, "/a"), rig.create(s, "/zookeeper/quota/a");
    for (int i = 0; i < 400; i++) rig.create(s, "/a/" + std::to_string(i));
    rig.create(s, limits_of("/a"), "none");
    std::uint64_t before = rig.machine.work();
    CHECK(rig.set(s, limits_of("/a"), "count=1").error == Errc::ok);
    CHECK(rig.machine.work() - before >= 100);
    CHECK(rig.set(s, limits_of("/a"), "none").error == Errc::ok);
    rig.create(s, "/a/more");
    before = rig.machine.work();
    CHECK(rig.set(s, limits_of("/a"), "count=1").error == Errc::too_large);
    CHECK(rig.machine.work() - before >= 100);
}

TEST_CASE("the deepest quota is found among those beside and between") {
    Rig rig;
    const SessionId s = rig.open(1);
    const Bytes all[] = {"/a", "/a!", "/a!/b", "/a/a", "/a/b", "/a/b!", "/a/b!/c", "/a/b/c",
                         "/a/b/c/d", "/a/b/cc", "/a/bb", "/a0", "/a0/b", "/b", "/b/b", "/b/b/b"};
    for (const Bytes& path : all) rig.create(s, path);
    for (std::uint32_t some = 1; some < 1u << 16; some = some * 3 + 1) {
        CAPTURE(some);
        std::map<Bytes, int> counts;
        for (std::size_t i = 0; i < 16; i++) {
            if ((some >> i & 1) == 0) continue;
            CHECK(set_quota(rig, s, all[i], "") == Errc::ok);
            counts[all[i]] = 0;
        }
        rig.create(s, "/a/b/c/x"), rig.remove(s, "/a/b/c/x");
        for (const Bytes& path : all) {
            for (Bytes at = path; at.size() > 1; at = coord::parent_path(at)) {
                if (counts.count(at) == 0) continue;
                counts[at] += 1;
                break;
            }
        }
        for (const auto& [path, count] : counts) {
            CHECK(stats(rig, path) == "count=" + std::to_string(count) + ",bytes=0");
        }
        Rig other;
        CHECK(other.machine.load(rig.saved()) == Errc::ok);
        for (const auto& [path, count] : counts) {
            (void)multi(rig, s, {remove_all("/zookeeper/quota" + path)});  // or with one above
        }
    }
}

TEST_CASE("at random: what is counted is what is there, whatever failed meanwhile") {
    for (std::uint64_t seed = 1; seed <= 3; seed++) {
        CAPTURE(seed);
        coord::Rng rng(support::seed_or(seed * 41));
        Rig rig;
        rig.audits = false;
        SessionId s = rig.open(1);
        const Bytes texts[] = {"countHardLimit=3", "byteHardLimit=40", "", "?", "count=2"};
        std::size_t refused = 0, begun = 0;
        for (int step = 0; step < 3000; step++) {
            Bytes subject;
            for (std::uint64_t k = 0; k <= rng.below(3); k++) {
                subject += "/", subject += static_cast<char>('a' + rng.below(8));
            }
            Parts parts;
            const Bytes& text = texts[rng.below(5)];
            switch (rng.below(20)) {
                case 0: parts = {with_parents(limits_of(subject), text)}; break;
                case 1: parts = {set(limits_of(subject), text)}; break;
                case 2: parts = {with_parents(stats_of(subject), text)}; break;
                case 3: parts = {remove_all("/zookeeper/quota" + subject)}; break;
                default: break;
            }
            if (rng.chance(300)) parts.push_back(remove_all(subject));
            if (rng.chance(300)) parts.push_back(with_parents(subject, text));
            if (rng.chance(200)) parts.push_back(failing());
            const bool is_ours = !parts.empty() && rng.chance(900);
            const std::uint64_t before = rig.machine.tree().digest();
            const Outcome outcome = rig.next(s, OpCode::multi,
                                             is_ours ? multi_body(parts) : random_multi(rng));
            const bool is_same = rig.machine.tree().digest() == before;
            REQUIRE((outcome.error == Errc::ok || is_same));
            refused += outcome.error == Errc::quota_exceeded ? 1u : 0u;
            begun += outcome.error == Errc::ok && is_ours ? 1u : 0u;
            rig.machine.audit();
            if (rng.chance(3)) {
                rig.apply(s, 0, OpCode::close_session, BytesView("\1", 1));
                s = rig.open(rng.next() | 1);
            }
            if (!rng.chance(20)) continue;
            Machine read(Limits{}, seed);
            REQUIRE(read.load(rig.saved()) == Errc::ok);
            REQUIRE(read.digest() == rig.machine.digest());
        }
        CHECK(refused > 10);
        CHECK(begun > 200);
    }
}

}  // TEST_SUITE
