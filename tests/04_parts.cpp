// Chapter 4: the parts of a multi that ZooKeeper has not: conditions and guards, create_or_set,
// create_with_parents, take_over and remove_all. What a session asks of them is in 13_writes.cpp.

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

#include "coord.hpp"
#include "machine_rig.hpp"
#include "support.hpp"

namespace {

using namespace machine;
using coord::Condition;

using OnePart = std::pair<OpCode, Bytes>;
using Parts = std::vector<OnePart>;

constexpr CreateMode persistent = CreateMode::persistent;
constexpr CreateMode ephemeral = CreateMode::ephemeral;
constexpr CreateMode numbered = CreateMode::persistent_sequential;
constexpr CreateMode container = CreateMode::container;

OnePart create(BytesView path, BytesView data = "", CreateMode mode = persistent) {
    return {OpCode::create, create_body(path, data, mode)};
}
OnePart erase(BytesView path) { return {OpCode::remove, remove_body(path, -1)}; }
OnePart set(BytesView path, BytesView data) { return {OpCode::set, set_body(path, data, -1)}; }
OnePart that(Condition condition, BytesView path, std::uint64_t number = 0, BytesView data = {}) {
    return {OpCode::check_that, condition_body(condition, path, number, data)};
}
OnePart has_data(BytesView path, BytesView data) { return that(Condition::data, path, 0, data); }
OnePart guard(BytesView path, Zxid czxid) { return {OpCode::guard, guard_body(path, czxid)}; }
OnePart put(BytesView path, BytesView data, CreateMode mode = persistent) {
    return {OpCode::create_or_set, create_body(path, data, mode)};
}
OnePart with_parents(BytesView path, BytesView data = "", CreateMode mode = persistent,
                     CreateMode parents = persistent) {
    return {OpCode::create_with_parents, with_parents_body(path, data, mode, parents)};
}
OnePart erase_all(BytesView path, std::int32_t version = -1) {
    return {OpCode::remove_all, remove_body(path, version)};
}
// Rig::open's passwords are of the nonce.
OnePart take_over(BytesView path, BytesView data, SessionId earlier, std::uint64_t nonce) {
    return {OpCode::take_over, take_over_body(path, data, earlier, nonce * 3, nonce * 5)};
}
const OnePart failing{OpCode::check, remove_body("/none", -1)};

Outcome multi(Rig& rig, SessionId session, const Parts& parts) {
    return rig.next(session, OpCode::multi, multi_body(parts));
}
Errc one(Rig& rig, SessionId session, const OnePart& part) {
    return multi(rig, session, {part}).error;
}
Errc judge(const OnePart& part, const Limits& limits = {}) {
    return judge_request(OpCode::multi, multi_body({part}), limits);
}

std::vector<Bytes> nodes_of(Rig& rig) {
    std::vector<Bytes> nodes;
    for (const Bytes& record : rig.records()) {
        if (record[0] == 3) nodes.push_back(record);  // FORMAT: StateRecord::node
    }
    return nodes;
}

// A part that fails, alone and behind others, has changed nothing and is heard of by nobody.
void fails(Rig& rig, SessionId session, const OnePart& part, Errc error) {
    const std::vector<Bytes> before = nodes_of(rig);
    const std::size_t owned = rig.machine.tree().owned(session);
    const Parts all[] = {{part}, {create("/early", "", ephemeral), part}, {part, create("/late")}};
    for (const Parts& parts : all) {
        CAPTURE(parts.size());
        rig.heard.lines.clear();
        const Outcome outcome = multi(rig, session, parts);
        CHECK(outcome.error == error);
        for (const coord::Part& each : outcome.parts) CHECK(each.stat.czxid == Zxid{});
        CHECK(rig.heard.lines.empty());
        CHECK(nodes_of(rig) == before);
        CHECK(rig.machine.tree().owned(session) == owned);
    }
}

// And one that is undone, too.
void is_undone(Rig& rig, SessionId session, const OnePart& part) {
    const std::vector<Bytes> before = nodes_of(rig);
    rig.heard.lines.clear();
    const Outcome outcome = multi(rig, session, {part, failing});
    CHECK(outcome.error == Errc::no_node);
    CHECK(outcome.parts[0].error == Errc::ok);
    CHECK(outcome.parts[0].path.empty());
    CHECK(rig.heard.lines.empty());
    CHECK(nodes_of(rig) == before);
}

}  // namespace

TEST_SUITE("04 parts") {

TEST_CASE("conditions: what each asks for, and the error of each where it is another") {
    Rig rig;
    const SessionId s = rig.open(1), other = rig.open(2);
    const Zxid a = rig.create(s, "/a", "data").zxid;
    rig.create(s, "/a/b"), rig.create(other, "/e", "", ephemeral);
    rig.create(s, "/null", coord::null_data);
    const std::pair<OnePart, Errc> rows[] = {
        {that(Condition::absent, "/none"), Errc::ok},
        {that(Condition::absent, "/a"), Errc::node_exists},
        {that(Condition::czxid, "/a", a.value), Errc::ok},
        {that(Condition::czxid, "/a", a.value + 1), Errc::condition_failed},
        {that(Condition::czxid, "/none", a.value), Errc::no_node},
        {that(Condition::owner, "/e", other.value), Errc::ok},
        {that(Condition::owner, "/e", s.value), Errc::condition_failed},
        {that(Condition::owner, "/e", 0), Errc::condition_failed},
        {that(Condition::owner, "/a", 0), Errc::ok},
        {that(Condition::owner, "/a", s.value), Errc::condition_failed},
        {that(Condition::owner, "/none", 0), Errc::no_node},
        {has_data("/a", "data"), Errc::ok},
        {has_data("/a", "dat"), Errc::condition_failed},
        {has_data("/a", "date"), Errc::condition_failed},
        {has_data("/a", coord::null_data), Errc::condition_failed},
        {has_data("/a/b", ""), Errc::ok},
        {has_data("/a/b", coord::null_data), Errc::condition_failed},
        {has_data("/null", coord::null_data), Errc::ok},
        {has_data("/null", ""), Errc::condition_failed},
        {has_data("/none", ""), Errc::no_node},
        {that(Condition::children, "/a", 1), Errc::ok},
        {that(Condition::children, "/a", 0), Errc::condition_failed},
        {that(Condition::children, "/a", (std::uint64_t{1} << 32) + 1), Errc::condition_failed},
        {that(Condition::children, "/a/b", 0), Errc::ok},
        {that(Condition::children, "/none", 0), Errc::no_node},
        {that(Condition::absent, "no path"), Errc::bad_arguments},
        {has_data("/a/", ""), Errc::bad_arguments},
    };
    for (const auto& row : rows) {
        const Errc error = row.second;
        CAPTURE(support::hex(row.first.second));
        if (error != Errc::ok) fails(rig, s, row.first, error);
        if (error != Errc::ok) continue;
        rig.heard.lines.clear();
        const Outcome outcome = multi(rig, s, {row.first});
        CHECK(outcome.error == Errc::ok);
        CHECK(outcome.parts[0].path.empty());
        CHECK(rig.heard.lines.empty());
    }
    const Outcome seen = multi(rig, s, {set("/a", "2"), has_data("/a", "2"), erase("/a/b"),
                                        that(Condition::children, "/a", 0)});
    CHECK(seen.error == Errc::ok);
    CHECK(seen.parts[1].stat.version == 1);  // as the part found it
    CHECK(seen.parts[3].stat.num_children == 0);
}

TEST_CASE("M10 a guard: only while that very node is there, and not another of its name") {
    Rig rig;
    const SessionId s = rig.open(1);
    const Zxid lock = rig.create(s, "/lock", "", ephemeral).zxid;
    rig.create(s, "/a");
    CHECK(multi(rig, s, {guard("/lock", lock), set("/a", "1")}).error == Errc::ok);
    fails(rig, s, guard("/none", lock), Errc::guard_lost);
    fails(rig, s, guard("/lock", Zxid{lock.value + 1}), Errc::guard_lost);
    fails(rig, s, guard("/a/", lock), Errc::bad_arguments);
    CHECK(multi(rig, s, {guard("/lock", lock), set("/a", "2"), erase("/lock")}).error == Errc::ok);
    rig.create(s, "/lock", "", ephemeral);
    const Outcome late = multi(rig, s, {guard("/lock", lock), set("/a", "3")});
    CHECK(late.error == Errc::guard_lost);
    CHECK(late.parts[0].error == Errc::guard_lost);
    CHECK(late.parts[1].error == Errc::runtime_inconsistency);
    CHECK(rig.machine.tree().find("/a")->data == "2");
}

TEST_CASE("create_or_set: creates where it is absent, sets where it is there, whatever it is") {
    Rig rig;
    const SessionId s = rig.open(1), other = rig.open(2);
    const Outcome made = multi(rig, s, {put("/a", "1", ephemeral)});
    CHECK(made.error == Errc::ok);
    CHECK(made.parts[0].path == "/a");
    CHECK(made.parts[0].stat.czxid == made.zxid);
    CHECK(made.parts[0].stat.ephemeral_owner == s);
    CHECK(rig.heard.lines == Lines{"created /a 3", "children / 3"});
    rig.heard.lines.clear();
    const Outcome again = multi(rig, other, {put("/a", "22")});
    CHECK(again.error == Errc::ok);
    CHECK(again.parts[0].path == "/a");
    CHECK(again.parts[0].stat.czxid == made.zxid);
    CHECK(again.parts[0].stat.mzxid == again.zxid);
    CHECK(again.parts[0].stat.version == 1);
    CHECK(again.parts[0].stat.ephemeral_owner == s);  // T7
    CHECK(rig.heard.lines == Lines{"data /a 4"});
    CHECK(one(rig, s, put("/a", coord::null_data)) == Errc::ok);
    CHECK(coord::is_null(rig.machine.tree().find("/a")->data));
    CHECK(one(rig, s, put("/", "root")) == Errc::ok);
    CHECK(one(rig, s, put("/c", "", container)) == Errc::ok);
    CHECK(rig.machine.tree().life("/c")->kind == coord::NodeKind::container);
    // Twice in one: it is new by the first alone.
    const Outcome both = multi(rig, s, {put("/b", "1"), put("/b", "2"), has_data("/b", "2")});
    CHECK(both.error == Errc::ok);
    CHECK(both.parts[0].stat.version == 0);
    CHECK(both.parts[1].stat.version == 1);
    fails(rig, s, put("/none/x", ""), Errc::no_node);
    fails(rig, s, put("/a/x", ""), Errc::no_children_for_ephemerals);
    fails(rig, s, put("x", ""), Errc::bad_arguments);
    fails(rig, s, put("", ""), Errc::bad_arguments);
    fails(rig, s, put("/n-", "", numbered), Errc::bad_arguments);
    is_undone(rig, s, put("/a", "other"));
    is_undone(rig, s, put("/new", "", ephemeral));
}

TEST_CASE("create_with_parents: what is missing above is made, of the kind that was asked for") {
    Rig rig;
    const SessionId s = rig.open(1);
    rig.create(s, "/a", "kept", container);
    rig.heard.lines.clear();
    const Outcome made = multi(rig, s, {with_parents("/a/b/c/d", "data", ephemeral)});
    CHECK(made.error == Errc::ok);
    CHECK(made.parts[0].path == "/a/b/c/d");
    CHECK(made.parts[0].stat.ephemeral_owner == s);
    CHECK(made.parts[0].stat.data_length == 4);
    CHECK(rig.heard.lines == Lines{"created /a/b 3", "children /a 3", "created /a/b/c 3",
                                   "children /a/b 3", "created /a/b/c/d 3", "children /a/b/c 3"});
    CHECK(rig.machine.tree().find("/a")->data == "kept");
    CHECK(rig.machine.tree().life("/a/b")->kind == coord::NodeKind::persistent);
    CHECK(one(rig, s, with_parents("/k/l/n-", "", numbered, container)) == Errc::ok);
    CHECK(rig.machine.tree().life("/k")->kind == coord::NodeKind::container);
    CHECK(rig.machine.tree().life("/k/l")->kind == coord::NodeKind::container);
    CHECK(rig.machine.tree().contains("/k/l/n-0000000000"));
    CHECK(one(rig, s, with_parents("/p/q/", "", numbered)) == Errc::ok);
    CHECK(rig.machine.tree().contains("/p/q/0000000000"));
    CHECK(one(rig, s, with_parents("/x")) == Errc::ok);
    fails(rig, s, with_parents("/x"), Errc::node_exists);
    fails(rig, s, with_parents("/a/b"), Errc::node_exists);
    fails(rig, s, with_parents("/a/b/c/d/e/f"), Errc::no_children_for_ephemerals);
    fails(rig, s, with_parents("/new//x"), Errc::bad_arguments);
    fails(rig, s, with_parents("/new/x/"), Errc::bad_arguments);
    fails(rig, s, with_parents("/new/./x"), Errc::bad_arguments);
    fails(rig, s, with_parents("new/x"), Errc::bad_arguments);
    fails(rig, s, with_parents(""), Errc::bad_arguments);
    for (const CreateMode parents : {ephemeral, numbered, CreateMode{99}}) {
        fails(rig, s, with_parents("/new/x", "", persistent, parents), Errc::bad_arguments);
    }
    is_undone(rig, s, with_parents("/new/x/y", "", ephemeral, container));
    is_undone(rig, s, with_parents("/a/b/n-", "", numbered));
}

TEST_CASE("create_with_parents: bounds are looked at for each, and none is left over") {
    Limits limits;
    limits.nodes_max = 8, limits.ephemerals_per_session_max = 1;
    Rig rig(limits);
    const SessionId s = rig.open(1);
    fails(rig, s, with_parents("/1/2/3/4/5"), Errc::too_many);
    CHECK(rig.machine.tree().size() == 4);
    CHECK(one(rig, s, with_parents("/1/2", "", ephemeral)) == Errc::ok);
    fails(rig, s, with_parents("/3/4", "", ephemeral), Errc::too_many);
    CHECK(one(rig, s, with_parents("/3/4")) == Errc::ok);
}

TEST_CASE("M11 remove_all: all below, the last of a listing first, or nothing") {
    Rig rig;
    const SessionId s = rig.open(1), other = rig.open(2);
    for (const char* const path : {"/a", "/a/b", "/a/b/c", "/a/d", "/ab", "/a/b-"}) {
        rig.create(s, path, "data");
    }
    rig.create(other, "/a/e", "", ephemeral), rig.create(s, "/a/b/e", "", ephemeral);
    rig.create(s, "/a/t", "", CreateMode::persistent_with_ttl, 9);
    rig.create(s, "/a/k", "", container);
    is_undone(rig, s, erase_all("/a"));
    CHECK(rig.machine.tree().find("/a/e")->stat.ephemeral_owner == other);
    fails(rig, s, erase_all("/a", 3), Errc::bad_version);
    fails(rig, s, erase_all("/none"), Errc::no_node);
    for (const char* const path : {"/", "/zookeeper", "/zookeeper/config", "", "/a/", "a"}) {
        fails(rig, s, erase_all(path), Errc::bad_arguments);
    }
    rig.heard.lines.clear();
    const Outcome gone = multi(rig, s, {erase_all("/a", 0)});
    CHECK(gone.error == Errc::ok);
    CHECK(gone.parts[0].path.empty());
    const std::string z = " " + std::to_string(rig.counter);
    CHECK(rig.heard.lines ==
          Lines{"deleted /a/t" + z, "children /a" + z, "deleted /a/k" + z, "children /a" + z,
                "deleted /a/e" + z, "children /a" + z, "deleted /a/d" + z, "children /a" + z,
                "deleted /a/b-" + z, "children /a" + z, "deleted /a/b/e" + z, "children /a/b" + z,
                "deleted /a/b/c" + z, "children /a/b" + z, "deleted /a/b" + z, "children /a" + z,
                "deleted /a" + z, "children /" + z});
    CHECK(rig.machine.tree().contains("/ab"));
    CHECK(rig.machine.tree().size() == 5);
    CHECK(rig.machine.tree().owned(s) == 0);
    CHECK(rig.machine.tree().owned(other) == 0);
    const coord::Stat root = rig.machine.tree().find("/")->stat;
    CHECK(root.num_children == 2);
    CHECK(root.pzxid == gone.zxid);
    // Ones that the same multi made, and made again.
    CHECK(multi(rig, s, {with_parents("/a/b/c", "", ephemeral), erase_all("/a"),
                         create("/a", "", ephemeral)})
              .error == Errc::ok);
    CHECK(rig.machine.tree().owned(s) == 1);
}

TEST_CASE("M11 remove_all: a bound on all that one transaction removes so") {
    Limits limits;
    limits.removals_max = 3;
    Rig rig(limits);
    const SessionId s = rig.open(1);
    for (const char* const path : {"/a", "/a/1", "/a/2", "/b", "/b/1", "/c", "/d"}) {
        rig.create(s, path);
    }
    CHECK(one(rig, s, with_parents("/d/1/2/3")) == Errc::ok);
    fails(rig, s, erase_all("/d"), Errc::too_large);
    CHECK(multi(rig, s, {erase_all("/a"), erase_all("/c")}).error == Errc::too_large);
    CHECK(multi(rig, s, {erase_all("/b"), erase_all("/d/1")}).error == Errc::too_large);
    CHECK(rig.machine.tree().contains("/b/1"));
    CHECK(multi(rig, s, {erase_all("/b"), erase_all("/c"), erase("/d/1/2/3")}).error == Errc::ok);
    CHECK(one(rig, s, erase_all("/a")) == Errc::ok);  // each transaction has as many
    CHECK(one(rig, s, erase_all("/d")) == Errc::ok);
    CHECK(rig.machine.tree().size() == 4);
    limits.removals_max = 0;
    Rig none(limits);
    const SessionId t = none.open(1);
    none.create(t, "/a");
    fails(none, t, erase_all("/a"), Errc::too_large);
}

TEST_CASE("M12 take_over: another node, of who took it, where the old one was of that session") {
    Rig rig;
    const SessionId s = rig.open(1), earlier = rig.open(2), third = rig.open(3);
    const Zxid old = rig.create(earlier, "/e", "old", ephemeral).zxid;
    fails(rig, s, take_over("/e", "new", earlier, 7), Errc::auth_failed);
    fails(rig, s, take_over("/e", "new", third, 3), Errc::node_exists);
    fails(rig, s, take_over("/e", "new", SessionId{}, 2), Errc::node_exists);
    fails(rig, s, take_over("/e", "new", s, 1), Errc::node_exists);
    is_undone(rig, s, take_over("/e", "new", earlier, 2));
    CHECK(rig.machine.tree().find("/e")->stat.ephemeral_owner == earlier);
    rig.heard.lines.clear();
    const Outcome taken = multi(rig, s, {take_over("/e", "new", earlier, 2)});
    CHECK(taken.error == Errc::ok);
    CHECK(taken.parts[0].path == "/e");
    CHECK(taken.parts[0].stat.czxid == taken.zxid);
    CHECK(old < taken.zxid);
    CHECK(taken.parts[0].stat.ephemeral_owner == s);
    CHECK(taken.parts[0].stat.version == 0);
    const std::string z = " " + std::to_string(rig.counter);
    CHECK(rig.heard.lines ==
          Lines{"deleted /e" + z, "children /" + z, "created /e" + z, "children /" + z});
    CHECK(rig.machine.tree().owned(earlier) == 0);
    CHECK(rig.machine.tree().find("/e")->stat.ephemeral_owner == s);
    CHECK(multi(rig, s, {guard("/e", old)}).error == Errc::guard_lost);
    CHECK(one(rig, s, take_over("/e", "once more", s, 1)) == Errc::ok);  // one's own
    // A persistent node is of nobody, also where nobody is named.
    rig.create(s, "/p");
    fails(rig, s, take_over("/p", "", SessionId{}, 2), Errc::node_exists);
    fails(rig, s, take_over("/p", "", earlier, 2), Errc::node_exists);
    fails(rig, s, take_over("/none/x", "", earlier, 2), Errc::no_node);
}

TEST_CASE("take_over: an earlier session that has ended meanwhile makes no difference") {
    Rig rig;
    const SessionId s = rig.open(1), earlier = rig.open(2), other = rig.open(3);
    rig.create(earlier, "/e", "", ephemeral);
    rig.apply(earlier, 0, OpCode::close_session, "\1");
    CHECK(one(rig, s, take_over("/e", "mine", earlier, 2)) == Errc::ok);  // absent: created
    CHECK(rig.machine.tree().find("/e")->stat.ephemeral_owner == s);
    fails(rig, other, take_over("/e", "", earlier, 2), Errc::node_exists);  // and not by his
    CHECK(one(rig, other, take_over("/f", "", SessionId{99}, 2)) == Errc::ok);
}

TEST_CASE("take_over: the bound on ephemerals is of who takes it; nothing is lost by it") {
    Limits limits;
    limits.ephemerals_per_session_max = 1, limits.nodes_max = 6;
    Rig rig(limits);
    const SessionId s = rig.open(1), earlier = rig.open(2);
    rig.create(earlier, "/e", "", ephemeral), rig.create(s, "/mine", "", ephemeral);
    fails(rig, s, take_over("/e", "", earlier, 2), Errc::too_many);
    CHECK(rig.machine.tree().find("/e")->stat.ephemeral_owner == earlier);
    rig.remove(s, "/mine"), rig.create(s, "/x");
    CHECK(one(rig, s, take_over("/e", "", earlier, 2)) == Errc::ok);  // as many nodes as before
    CHECK(one(rig, s, take_over("/e", "", s, 1)) == Errc::ok);  // and ephemerals
}

TEST_CASE("judge_request: each part by itself; nothing of it is a request alone") {
    Limits limits;
    limits.path_bytes_max = 30, limits.data_bytes_max = 10;
    const Bytes longer(11, 'd');
    const Bytes far = "/" + Bytes(30, 'p');
    const OnePart sound[] = {that(Condition::absent, "/a"),   that(Condition::czxid, "/a", 1),
                             that(Condition::owner, "/a", 1), that(Condition::children, "/a", 1),
                             has_data("/a", "d"),             has_data("/a", coord::null_data),
                             guard("/a", Zxid{7}),            put("/a", "d"),
                             with_parents("/a/b", "d"),       take_over("/a", "d", SessionId{1}, 1),
                             erase_all("/a")};
    for (const OnePart& part : sound) {
        CAPTURE(support::hex(part.second));
        CHECK(judge(part, limits) == Errc::ok);
        CHECK(judge_request(part.first, part.second, limits) == Errc::unimplemented);
        CHECK(judge({part.first, part.second + "x"}, limits) == Errc::marshalling_error);
        Rig rig;
        const SessionId s = rig.open(1);
        for (std::size_t size = 0; size < part.second.size(); size++) {
            const OnePart cut{part.first, part.second.substr(0, size)};
            CHECK(judge(cut, limits) != Errc::ok);
            CHECK(one(rig, s, cut) != Errc::ok);
        }
        CHECK(rig.next(s, OpCode::multi, multi_body({part}) + "x").error != Errc::ok);
        // A log that has it alone, all the same, changes nothing by it.
        CHECK(rig.next(s, part.first, part.second).error == Errc::unimplemented);
        CHECK(rig.machine.tree().size() == 4);
    }
    const OnePart large[] = {that(Condition::absent, far), has_data("/a", longer),
                             guard(far, Zxid{1}),          put("/a", longer),
                             put(far, ""),                 with_parents(far),
                             with_parents("/a", longer),   take_over(far, "", SessionId{1}, 1),
                             take_over("/a", longer, SessionId{1}, 1), erase_all(far),
                             with_parents("/" + Bytes(19, 'n'), "", numbered)};
    for (const OnePart& part : large) CHECK(judge(part, limits) == Errc::too_large);
    const OnePart bad[] = {
        {OpCode::check_that, Bytes("\0\0\0\2/a\0", 7) + Bytes(8, '\0')},
        {OpCode::check_that, Bytes("\0\0\0\2/a\6", 7) + Bytes(8, '\0')},
        put("/a", "", numbered),
        put("/a", "", static_cast<CreateMode>(9)),
        with_parents("/a", "", static_cast<CreateMode>(9)),
        with_parents("/a", "", persistent, ephemeral),
        with_parents("/a", "", persistent, CreateMode::persistent_with_ttl),
        {OpCode::take_over, take_over_body("/a", "", SessionId{1}, 1, 1, persistent)},
        {OpCode::take_over,
         take_over_body("/a", "", SessionId{1}, 1, 1, CreateMode::ephemeral_sequential)}};
    for (const OnePart& part : bad) {
        CHECK(judge(part, limits) == Errc::bad_arguments);
        Rig rig;
        const SessionId s = rig.open(1);
        CHECK(one(rig, s, part) == Errc::bad_arguments);
    }
    for (int op = 11; op < 30; op++) {  // 12 is set_acl, which is a request by itself
        if (op == 12 || (op >= 16 && op <= 21)) continue;
        CHECK(judge({static_cast<OpCode>(op), Bytes(12, '\0')}) == Errc::unimplemented);
    }
}

TEST_CASE("what takes space: whatever may create, and neither a condition nor a removal") {
    const auto takes = [](const OnePart& part) {
        return coord::takes_space(OpCode::multi, multi_body({part}));
    };
    CHECK(takes(put("/a", "")));
    CHECK(takes(with_parents("/a")));
    CHECK(takes(take_over("/a", "", SessionId{1}, 1)));
    CHECK_FALSE(takes(erase_all("/a")));
    CHECK_FALSE(takes(has_data("/a", "data")));
    CHECK_FALSE(takes(guard("/a", Zxid{1})));
}

TEST_CASE("outcomes of such parts are saved and loaded; a save that is under way is of its begin") {
    Rig rig;
    const SessionId s = rig.open(1), earlier = rig.open(2);
    rig.create(earlier, "/e", "", ephemeral), rig.create(s, "/a"), rig.create(s, "/a/b");
    const std::vector<Bytes> before = rig.records();
    rig.machine.begin_save();
    Bytes saved;
    while (saved.size() < 100) {
        if (rig.machine.save_slice(1, saved)) break;
    }
    const Outcome outcome =
        multi(rig, s, {take_over("/e", "", earlier, 2), erase_all("/a"), put("/p", "1"),
                       with_parents("/x/y"), has_data("/p", "1")});
    CHECK(outcome.error == Errc::ok);
    while (!rig.machine.save_slice(50, saved)) {
    }
    CHECK(support::sorted_records(saved) == before);
    Rig copy;
    REQUIRE(copy.machine.load(rig.saved()) == Errc::ok);
    CHECK(copy.records() == rig.records());
    CHECK(copy.machine.tree().find("/e")->stat.ephemeral_owner == s);
    const Outcome* const kept = copy.machine.find_session(s)->outcome_of(outcome.cxid);
    REQUIRE(kept != nullptr);
    REQUIRE(kept->parts.size() == 5);
    CHECK(kept->parts[2].path == "/p");
    CHECK(kept->parts[4].stat.czxid == outcome.zxid);
}

// Red when the format changes: logs with them cannot be read any more then.
TEST_CASE("golden: the bodies of these parts") {
    const std::pair<OnePart, const char*> rows[] = {
        {that(Condition::absent, "/a"), "000000022f61" "01"},
        {that(Condition::czxid, "/a", 7), "000000022f61" "02" "0000000000000007"},
        {that(Condition::owner, "/a", 7), "000000022f61" "03" "0000000000000007"},
        {has_data("/a", "d"), "000000022f61" "04" "0000000164"},
        {has_data("/a", coord::null_data), "000000022f61" "04" "ffffffff"},
        {that(Condition::children, "/a", 7), "000000022f61" "05" "0000000000000007"},
        {guard("/a", Zxid{7}), "000000022f61" "0000000000000007"},
        {put("/a", "d"), "000000022f61" "0000000164" "00000000"},
        {with_parents("/a", "d", ephemeral, container),
         "04" "000000022f61" "0000000164" "00000001"},
        {take_over("/a", "d", SessionId{7}, 2),
         "0000000000000007" "0000000000000006" "000000000000000a" "000000022f61" "0000000164"
         "00000001"},
        {erase_all("/a", 7), "000000022f61" "00000007"},
    };
    for (const auto& row : rows) {
        CHECK(support::hex(row.first.second) == row.second);
        CHECK(judge(row.first) == Errc::ok);
    }
    const std::pair<OpCode, int> codes[] = {
        {OpCode::check_that, 16}, {OpCode::guard, 17},     {OpCode::create_or_set, 18},
        {OpCode::create_with_parents, 19}, {OpCode::take_over, 20}, {OpCode::remove_all, 21}};
    for (const auto& code : codes) CHECK(static_cast<int>(code.first) == code.second);
}

}  // TEST_SUITE
