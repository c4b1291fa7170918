// Chapter 4: transactions of several parts. What each part does by itself is in 04_machine.cpp;
// here is what they do together: all of it or nothing.

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

#include "coord.hpp"
#include "machine_rig.hpp"
#include "support.hpp"

namespace {

using namespace machine;

using Parts = std::vector<std::pair<OpCode, Bytes>>;

std::pair<OpCode, Bytes> create(BytesView path, BytesView data = "",
                                CreateMode mode = CreateMode::persistent) {
    return {OpCode::create, create_body(path, data, mode)};
}
std::pair<OpCode, Bytes> set(BytesView path, BytesView data, std::int32_t version = -1) {
    return {OpCode::set, set_body(path, data, version)};
}
std::pair<OpCode, Bytes> erase(BytesView path, std::int32_t version = -1) {
    return {OpCode::remove, remove_body(path, version)};
}
std::pair<OpCode, Bytes> check(BytesView path, std::int32_t version = -1) {
    return {OpCode::check, remove_body(path, version)};
}

Outcome multi(Rig& rig, SessionId session, const Parts& parts) {
    return rig.next(session, OpCode::multi, multi_body(parts));
}

std::vector<Errc> errors_of(const Outcome& outcome) {
    std::vector<Errc> errors;
    for (const coord::Part& part : outcome.parts) errors.push_back(part.error);
    return errors;
}

// Of everything but what a request changes in its session.
std::vector<Bytes> nodes_of(Rig& rig) {
    std::vector<Bytes> nodes;
    for (const Bytes& record : rig.records()) {
        if (record[0] == 3) nodes.push_back(record);  // FORMAT: StateRecord::node
    }
    return nodes;
}

constexpr CreateMode ephemeral = CreateMode::ephemeral;
constexpr CreateMode numbered = CreateMode::persistent_sequential;

}  // namespace

TEST_SUITE("04 multi") {

TEST_CASE("each part sees what those before it did; one zxid, one time, events part by part") {
    Rig rig;
    const SessionId s = rig.open(1);
    rig.create(s, "/old", "o");
    rig.heard.lines.clear();
    const Outcome made = multi(rig, s, {create("/a", "1"), create("/a/b", "2"), set("/a", "33"),
                                        check("/a", 1), erase("/old"), create("/old", "new")});
    CHECK(made.error == Errc::ok);
    CHECK(errors_of(made) == std::vector<Errc>(6, Errc::ok));
    CHECK(made.path.empty());
    CHECK(made.parts[0].path == "/a");
    CHECK(made.parts[0].stat.num_children == 0);
    CHECK(made.parts[1].path == "/a/b");
    CHECK(made.parts[2].path.empty());
    CHECK(made.parts[2].stat.version == 1);
    CHECK(made.parts[2].stat.num_children == 1);
    CHECK(made.parts[3].stat.data_length == 2);
    CHECK(made.parts[4].path.empty());
    CHECK(made.parts[4].stat.czxid == Zxid{});
    CHECK(made.parts[5].stat.czxid == made.zxid);
    for (const char* const path : {"/a", "/a/b", "/old"}) {
        const coord::Stat stat = rig.machine.tree().find(path)->stat;
        CHECK(stat.czxid == made.zxid);
        CHECK(stat.mzxid == made.zxid);
        CHECK(stat.ctime_ms == static_cast<std::int64_t>(1000 + rig.counter));
    }
    CHECK(rig.machine.tree().find("/")->stat.pzxid == made.zxid);
    CHECK(rig.heard.lines == Lines{"created /a 3", "children / 3", "created /a/b 3",
                                   "children /a 3", "data /a 3", "deleted /old 3", "children / 3",
                                   "created /old 3", "children / 3"});
}

TEST_CASE("where one part fails, wherever it stands, none has happened and nobody hears of any") {
    const Parts parts{create("/n", "new"),         create("/n/x", "", ephemeral),
                      set("/a", Bytes(300, 's')),  erase("/a/e"),
                      erase("/a"),                create("/a", "again", ephemeral),
                      create("/p/s-", "", numbered), erase("/z"),
                      set("/", "root"),            check("/p", 0)};
    const std::pair<std::pair<OpCode, Bytes>, Errc> bad[] = {
        {check("/none"), Errc::no_node},         {check("/p", 7), Errc::bad_version},
        {check("no path"), Errc::bad_arguments}, {create("/p"), Errc::node_exists},
        {create("/none/x"), Errc::no_node},
        {create("/own/x"), Errc::no_children_for_ephemerals},
        {set("/p", "", 3), Errc::bad_version},   {set("/none", ""), Errc::no_node},
        {erase("/p", 3), Errc::bad_version},    {erase("/full"), Errc::not_empty},
        {erase("/zookeeper"), Errc::bad_arguments}};
    for (const auto& each : bad) {
        const auto& failing = each.first;
        const Errc error = each.second;
        for (std::size_t at = 0; at <= parts.size(); at++) {
            CAPTURE(at);
            CAPTURE(error);
            Rig rig;
            const SessionId s = rig.open(1), other = rig.open(2);
            rig.create(s, "/a", "data"), rig.create(other, "/a/e", "", ephemeral);
            rig.create(s, "/own", "", ephemeral), rig.create(other, "/z", "z", ephemeral);
            rig.create(s, "/p"), rig.create(s, "/full"), rig.create(s, "/full/child");
            const std::vector<Bytes> before = nodes_of(rig);
            const std::uint64_t digest = rig.machine.tree().digest();
            rig.heard.lines.clear();
            Parts all = parts;
            all.insert(all.begin() + static_cast<std::ptrdiff_t>(at), failing);
            const Outcome outcome = multi(rig, s, all);  // audited: M3, T1 to T4
            CHECK(outcome.error == error);
            REQUIRE(outcome.parts.size() == all.size());
            for (std::size_t i = 0; i < all.size(); i++) {
                const coord::Part& part = outcome.parts[i];
                CHECK(part.error == (i < at ? Errc::ok
                                     : i == at ? error
                                               : Errc::runtime_inconsistency));
                CHECK(part.path.empty());
                CHECK(part.stat.czxid == Zxid{});
            }
            CHECK(rig.heard.lines.empty());
            CHECK(nodes_of(rig) == before);
            CHECK(rig.machine.tree().digest() == digest);
            CHECK(rig.machine.tree().owned(s) == 1);
            CHECK(rig.machine.tree().owned(other) == 2);
            CHECK(multi(rig, s, parts).error == Errc::ok);  // and then all of it is possible
        }
    }
}

// A failed multi that kept the parent's new count made the next number one too high, or a node's
// name one that was there.
TEST_CASE("ZooKeeper B10 (ZOOKEEPER-1624): a multi that fails gives sequence numbers back") {
    Rig rig;
    const SessionId s = rig.open(1);
    rig.create(s, "/q");
    const auto one = create("/q/n-", "", numbered);
    const Outcome two = multi(rig, s, {one, one});
    REQUIRE(two.error == Errc::ok);
    CHECK(two.parts[0].path == "/q/n-0000000000");
    CHECK(two.parts[1].path == "/q/n-0000000001");
    const Outcome failed = multi(rig, s, {one, create("/q/x"), one, check("/q", 9)});
    CHECK(failed.error == Errc::bad_version);
    CHECK(rig.machine.tree().find("/q")->stat.cversion == 2);
    CHECK(rig.create(s, "/q/n-", "", numbered).path == "/q/n-0000000002");
    CHECK(rig.machine.tree().find("/q")->stat.num_children == 3);
}

TEST_CASE("a part can undo one before it, and a path can change hands within one") {
    Rig rig;
    const SessionId s = rig.open(1), other = rig.open(2);
    rig.create(other, "/theirs", "", ephemeral);
    const Outcome outcome =
        multi(rig, s, {create("/a"), erase("/a"), erase("/theirs"),
                       create("/theirs", "mine", ephemeral), create("/b", "", ephemeral),
                       erase("/b"), create("/b")});
    CHECK(outcome.error == Errc::ok);
    CHECK_FALSE(rig.machine.tree().contains("/a"));
    CHECK(rig.machine.tree().find("/theirs")->stat.ephemeral_owner == s);
    CHECK(rig.machine.tree().find("/b")->stat.ephemeral_owner == SessionId{});
    CHECK(rig.machine.tree().owned(other) == 0);
    CHECK(rig.machine.tree().find("/theirs")->stat.ephemeral_owner == s);
    CHECK(rig.machine.tree().owned(s) == 1);
    // The same, undone: it is theirs again.
    Rig again;
    const SessionId one = again.open(1), two = again.open(2);
    again.create(two, "/theirs", "", ephemeral);
    CHECK(multi(again, one, {erase("/theirs"), create("/theirs", "mine", ephemeral),
                             erase("/theirs"), create("/theirs", "mine", ephemeral),
                             check("/none")})
              .error == Errc::no_node);
    CHECK(again.machine.tree().find("/theirs")->stat.ephemeral_owner == two);
    CHECK(again.machine.tree().owned(one) == 0);
    CHECK(again.machine.tree().find("/theirs")->stat.ephemeral_owner == two);
}

TEST_CASE("bounds are those of the parts, with what the multi itself has made counted") {
    Limits limits;
    limits.nodes_max = 6, limits.ephemerals_per_session_max = 1;
    Rig rig(limits);
    const SessionId s = rig.open(1);
    CHECK(multi(rig, s, {create("/a"), create("/b"), create("/c")}).error == Errc::too_many);
    CHECK(rig.machine.tree().size() == 4);
    CHECK(multi(rig, s, {create("/a"), create("/b"), erase("/a"), create("/c")}).error == Errc::ok);
    CHECK(multi(rig, s, {erase("/b"), erase("/c"), create("/e", "", ephemeral),
                         create("/f", "", ephemeral)})
              .error == Errc::too_many);
    CHECK(rig.machine.tree().owned(s) == 0);
    CHECK(rig.machine.tree().contains("/c"));
}

// A parent's data, say a megabyte, was kept once for each child: a gigabyte for a small request.
TEST_CASE("what undoing takes goes by what changes, not by what the parent holds") {
    coord::Tree tree(1);
    Bytes path;
    const auto create = [&](BytesView wanted, CreateMode mode, BytesView data, Zxid zxid) {
        REQUIRE(tree.prepare_create(wanted, mode, path) == Errc::ok);
        tree.create(path, data, SessionId{}, zxid, 1);
    };
    create("/large", CreateMode::persistent, Bytes(100000, 'd'), Zxid(1, 1));
    create("/large/old", CreateMode::persistent, "", Zxid(1, 2));
    const std::uint64_t before = tree.digest();
    for (const bool is_put_back : {true, false}) {
        CAPTURE(is_put_back);
        tree.begin_undo();
        for (int i = 0; i < 100; i++) create("/large/n-", numbered, "", Zxid(1, 3));
        REQUIRE(tree.remove("/large/old", -1, Zxid(1, 3)) == Errc::ok);
        CHECK(tree.undo_bytes() < 10000);
        REQUIRE(tree.set("/large", "small", -1, Zxid(1, 3), 2) == Errc::ok);
        CHECK(tree.undo_bytes() > 100000);
        REQUIRE(tree.set("/large", "smaller", -1, Zxid(1, 3), 2) == Errc::ok);
        create("/large/new", CreateMode::persistent, "", Zxid(1, 3));
        CHECK(tree.undo_bytes() < 110000);
        tree.end_undo(is_put_back);
        CHECK(tree.undo_bytes() == 0);
        CHECK((tree.digest() == before) == is_put_back);
        tree.audit();
    }
}

TEST_CASE("a slot of an outcome that is confirmed keeps no memory of many parts") {
    Rig rig;
    const SessionId s = rig.open(1);
    rig.audits = false;
    const Bytes body = multi_body(Parts(100, check("/")));
    std::uint64_t cxid = 0;
    for (int i = 0; i < 8; i++) rig.apply(s, ++cxid, OpCode::multi, body, 0);
    for (int i = 0; i < 8; i++) {
        cxid += 1;
        const Outcome* const outcome =
            rig.apply(s, cxid, OpCode::set, set_body("/", "", -1), cxid - 1);
        REQUIRE(outcome != nullptr);
        CHECK(outcome->parts.capacity() == 0);
    }
}

TEST_CASE("none, and what cannot be read") {
    Rig rig;
    const SessionId s = rig.open(1);
    const Outcome none = multi(rig, s, {});
    CHECK(none.error == Errc::ok);
    CHECK(none.parts.empty());
    // Nobody numbers these; a log that has one all the same changes nothing by it.
    const Bytes good = multi_body({create("/a"), create("/b")});
    const std::vector<Bytes> before = nodes_of(rig);
    for (std::size_t size = 0; size < good.size(); size++) {
        const Outcome cut = rig.next(s, OpCode::multi, BytesView(good).substr(0, size));
        CHECK(cut.error == Errc::marshalling_error);
        CHECK(nodes_of(rig) == before);
    }
    CHECK(rig.next(s, OpCode::multi, good + "x").error == Errc::marshalling_error);
    for (const OpCode op : {OpCode::multi, OpCode::admit, OpCode::reap, OpCode::open_session,
                            OpCode::close_session, OpCode{99}}) {
        const Outcome odd = multi(rig, s, {create("/a"), {op, Bytes(4, '\0')}});
        CHECK(odd.error == Errc::unimplemented);
    }
    CHECK(nodes_of(rig) == before);
    CHECK(rig.next(s, OpCode::check, remove_body("/", -1)).error == Errc::ok);  // and this neither
}

TEST_CASE("judge_request: a multi is what its parts are, in that many; a check is nothing alone") {
    Limits limits;
    limits.path_bytes_max = 30, limits.data_bytes_max = 10, limits.multi_parts_max = 3;
    const auto judge = [&](const Parts& parts) {
        return judge_request(OpCode::multi, multi_body(parts), limits);
    };
    CHECK(judge({}) == Errc::ok);
    CHECK(judge({create("/a"), set("/a", "b"), erase("/a")}) == Errc::ok);
    CHECK(judge({check("/a"), check("/a"), check("/a"), check("/a")}) == Errc::too_many);
    CHECK(judge({check(Bytes(31, '/'))}) == Errc::too_large);
    CHECK(judge({check("/a"), create("/a", Bytes(11, 'd'))}) == Errc::too_large);
    CHECK(judge({create("/a", "", static_cast<CreateMode>(7))}) == Errc::bad_arguments);
    CHECK(judge({create("/a", "", CreateMode::container)}) == Errc::ok);
    CHECK(judge({create("/a", "", CreateMode::persistent_with_ttl)}) == Errc::bad_arguments);
    CHECK(judge({{OpCode::create, create_body("/a", "", CreateMode::persistent_with_ttl, 1)}}) ==
          Errc::ok);
    CHECK(judge({check("/a"), {OpCode::set, "short"}}) == Errc::marshalling_error);
    for (const OpCode op : {OpCode::multi, OpCode::admit, OpCode::reap, OpCode::open_session,
                            OpCode::close_session, OpCode{99}}) {
        CHECK(judge({check("/a"), {op, Bytes(12, '\0')}}) == Errc::unimplemented);
    }
    const Bytes good = multi_body({create("/a"), check("/b")});
    for (std::size_t size = 0; size < good.size(); size++) {
        CHECK(judge_request(OpCode::multi, BytesView(good).substr(0, size), limits) ==
              Errc::marshalling_error);
    }
    CHECK(judge_request(OpCode::multi, good + "x", limits) == Errc::marshalling_error);
    CHECK(judge_request(OpCode::check, remove_body("/a", -1), limits) == Errc::unimplemented);
}

TEST_CASE("T6 M6 T7 parts may be of every kind, and what is undone goes by itself as before") {
    const auto ttl = CreateMode::persistent_with_ttl;
    const Parts parts = {erase("/c"),
                         {OpCode::create, create_body("/c", "", ttl, 5)},
                         {OpCode::create, create_body("/new", "", CreateMode::container)},
                         {OpCode::create, create_body("/new/x", "", ephemeral)},
                         erase("/new/x")};
    for (const bool fails : {true, false}) {
        CAPTURE(fails);
        Rig rig;
        const SessionId s = rig.open(1);
        const Zxid before = rig.create(s, "/c", "", CreateMode::container).zxid;
        rig.create(s, "/c/x"), rig.remove(s, "/c/x");
        Parts all = parts;
        if (fails) all.push_back(check("/none"));
        const Outcome outcome = multi(rig, s, all);
        CHECK((outcome.error == Errc::ok) == !fails);
        const Zxid since = outcome.zxid;
        CHECK(rig.reap("/new", since) == (fails ? Errc::no_node : Errc::ok));
        CHECK(rig.reap("/c", before) == (fails ? Errc::ok : Errc::no_node));
        for (int i = 0; i < 3; i++) rig.create(s, "/c");  // time goes on
        CHECK(rig.reap("/c", since) == (fails ? Errc::no_node : Errc::ok));
    }
}

TEST_CASE("what takes space: a create or a set, wherever it stands") {
    const auto takes = [](const Parts& parts) {
        return coord::takes_space(OpCode::multi, multi_body(parts));
    };
    CHECK_FALSE(takes({}));
    CHECK_FALSE(takes({erase("/a"), check("/b")}));
    CHECK(takes({erase("/a"), create("/b")}));
    CHECK(takes({check("/a"), set("/b", "")}));
    CHECK(coord::takes_space(OpCode::create, ""));
    CHECK(coord::takes_space(OpCode::set, ""));
    CHECK_FALSE(coord::takes_space(OpCode::remove, ""));
    CHECK_FALSE(coord::takes_space(OpCode::close_session, ""));
    CHECK_FALSE(coord::takes_space(OpCode::reap, ""));
}

TEST_CASE("its outcome is kept, saved and loaded with its parts, and told once more") {
    Rig rig;
    const SessionId s = rig.open(1);
    multi(rig, s, {create("/a", "1"), create("/s-", "", numbered), set("/a", "2")});
    multi(rig, s, {create("/b"), check("/none"), create("/c")});
    multi(rig, s, {});
    Rig copy;
    REQUIRE(copy.machine.load(rig.saved()) == Errc::ok);
    for (std::uint64_t cxid = 1; cxid <= 3; cxid++) {
        CAPTURE(cxid);
        const Outcome* const one = rig.machine.find_session(s)->outcome_of(cxid);
        const Outcome* const two = copy.machine.find_session(s)->outcome_of(cxid);
        REQUIRE(one != nullptr);
        REQUIRE(two != nullptr);
        CHECK(two->error == one->error);
        REQUIRE(two->parts.size() == one->parts.size());
        for (std::size_t i = 0; i < one->parts.size(); i++) {
            CHECK(two->parts[i].error == one->parts[i].error);
            CHECK(two->parts[i].path == one->parts[i].path);
            CHECK(two->parts[i].stat.mzxid == one->parts[i].stat.mzxid);
            CHECK(two->parts[i].stat.version == one->parts[i].stat.version);
        }
    }
    CHECK(copy.records() == rig.records());
    Limits fewer;
    fewer.multi_parts_max = 2;
    Rig small(fewer);
    CHECK(small.machine.load(rig.saved()) == Errc::corrupt);
}

// Red when the format changes: states with a multi in them cannot be read any more then.
TEST_CASE("golden: the body of a multi, and its outcome in a state") {
    const Bytes body = multi_body({create("/a", "d", ephemeral), check("/b", 7)});
    CHECK(support::hex(body) == "00000002"
                                "03" "0000000f" "00000002" "2f61" "00000001" "64" "00000001"
                                "08" "0000000a" "00000002" "2f62" "00000007");
    Rig rig;
    const SessionId s = rig.open(1);
    multi(rig, s, {create("/a"), check("/b", 7)});
    const Bytes saved = support::hex(rig.saved());
    const Bytes no_stat(71 * 2 - 14 * 2 + 28, '0');
    CHECK(saved.find("07" "ffffff9b" "00000000") != Bytes::npos);         // no_node, no path
    CHECK(saved.find("00000002" "00000000" "00000000") != Bytes::npos);   // two parts; the first
    CHECK(saved.find("ffffff9b" "00000000" + Bytes(16, '0')) != Bytes::npos);
}

// A tree of its own is the model: the parts one by one where all of them go, else nothing.
TEST_CASE("random multis: the parts one after the other, or nothing at all") {
    for (std::uint64_t seed = 1; seed <= 4; seed++) {
        CAPTURE(seed);
        coord::Rng rng(support::seed_or(seed * 31));
        Rig rig;
        coord::Tree model(seed);
        rig.audits = false;
        const SessionId s = rig.open(1);
        std::size_t done = 0, undone = 0;
        for (int step = 0; step < 4000; step++) {
            const Bytes body = random_multi(rng);
            const std::uint64_t before = rig.machine.tree().digest();
            const Outcome outcome = rig.next(s, OpCode::multi, body);
            if (step % 100 == 0) rig.machine.audit();
            if (outcome.error != Errc::ok) {
                REQUIRE(rig.machine.tree().digest() == before);
                undone += 1;
                continue;
            }
            done += 1;
            coord::Reader in(body);
            const std::int64_t time_ms = static_cast<std::int64_t>(1000 + rig.counter);
            const std::uint32_t count = in.u32();
            for (std::uint32_t i = 0; i < count; i++) {
                const OpCode op = static_cast<OpCode>(in.u8());
                coord::Reader part(in.bytes(in.left()));
                const Bytes path(part.bytes(part.left()));
                const auto data_of = [&part] {
                    coord::Reader null = part;
                    if (null.u32() != UINT32_MAX) return part.bytes(part.left());
                    return part = null, coord::null_data;
                };
                if (op == OpCode::remove) {
                    REQUIRE(model.remove(path, -1, outcome.zxid) == Errc::ok);
                } else if (op == OpCode::set) {
                    const BytesView data = data_of();
                    REQUIRE(model.set(path, data, -1, outcome.zxid, time_ms) == Errc::ok);
                } else if (op == OpCode::create) {
                    const BytesView data = data_of();
                    const auto mode = static_cast<CreateMode>(part.i32());
                    Bytes made;
                    REQUIRE(model.prepare_create(path, mode, made) == Errc::ok);
                    REQUIRE(made == outcome.parts[i].path);
                    const coord::NodeLife life(mode, s, has_ttl(mode) ? part.i64() : 0);
                    model.create(made, data, life, outcome.zxid, time_ms);
                }
            }
            REQUIRE(model.digest() == rig.machine.tree().digest());
        }
        CHECK(done > 300);
        CHECK(undone > 1000);
        rig.machine.audit();
    }
}

}  // TEST_SUITE
