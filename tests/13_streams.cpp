// Chapters 5, 12 and 13: changes as a stream. What is told and in which order; going on from any
// position at any replica; what is kept and what is not; how a reader is woken, and how it ends.
// Standalone replicas in virtual time first; then three voters in a simulation.

#include <doctest/doctest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "session_rig.hpp"
#include "support.hpp"

namespace {

using coord::Bytes;
using coord::BytesView;
using coord::Change;
using coord::ChangePosition;
using coord::CreateMode;
using coord::Errc;
using coord::EventType;
using coord::milliseconds;
using coord::Op;
using coord::Query;
using coord::seconds;
using coord::Subscription;
using coord::Sync;
using coord::Zxid;
using Lines = std::vector<std::string>;
using Changes = std::vector<Change>;

coord::ReplicaOptions keeping(std::uint32_t bytes) {
    coord::ReplicaOptions options;
    options.change_bytes_kept = bytes;
    return options;
}

struct Alone : session_rig::Alone {
    explicit Alone(std::uint32_t bytes = 1u << 20) : Alone(keeping(bytes)) {}
    explicit Alone(const coord::ReplicaOptions& options) : session_rig::Alone(options) {
        patience = 5000;
    }
    Zxid applied() const { return replica.machine().applied(); }
};

std::string line(const Change& change) {
    const char* const word = change.type == EventType::created        ? "+"
                             : change.type == EventType::deleted      ? "-"
                             : change.type == EventType::data_changed ? "="
                                                                      : "?";
    const std::string data = change.is_null ? " null" : change.bytes.empty() ? "" : " ";
    return word + change.path + data + change.bytes + (change.is_last ? "" : " ..");
}

Lines lines(const Changes& changes) {
    Lines result;
    for (const Change& change : changes) result.push_back(line(change));
    return result;
}

// All that there is now. It fails where the stream is over.
Changes take_all(const Subscription& stream, std::size_t most = 256) {
    Changes all;
    for (;;) {
        auto taken = stream.take(most);
        REQUIRE(taken);
        CHECK(taken->size() <= most);
        if (taken->empty()) return all;
        for (Change& each : *taken) all.push_back(std::move(each));
    }
}

Lines take(const Subscription& stream) { return lines(take_all(stream)); }

bool is_same(const ChangePosition& a, const ChangePosition& b) { return !(a < b) && !(b < a); }

}  // namespace

TEST_SUITE_BEGIN("13 streams");

// ---- What is told

TEST_CASE("W3 a stream tells of no change of a node that the session may not read") {
    Alone alone;
    Sync owner = alone.open(), other = alone.open();
    REQUIRE(owner.add_auth("digest", "u:p"));
    REQUIRE(owner.create("/p", ""));
    const ChangePosition from = alone.applied();
    const Subscription own = owner.subscribe("/p", {from}), theirs = other.subscribe("/p", {from});
    REQUIRE(owner.create("/p/secret", "1", CreateMode::persistent, {}, coord::creator_acl()));
    REQUIRE(owner.set("/p/secret", "2"));
    REQUIRE(owner.multi({Op::set("/p/secret", "3"), Op::create("/p/open", "")}).error == Errc::ok);
    REQUIRE(owner.set_acl("/p/secret", coord::open_acl()));
    REQUIRE(owner.set("/p/secret", "4"));
    REQUIRE(owner.set_acl("/p/secret", coord::creator_acl()));
    REQUIRE(owner.remove("/p/secret"));
    alone.polls();
    CHECK(take(own) == Lines{"+/p/secret 1", "=/p/secret 2", "=/p/secret 3 ..", "+/p/open",
                             "=/p/secret 4", "-/p/secret"});
    CHECK(take(theirs) == Lines{"+/p/open", "=/p/secret 4"});
    CHECK(is_same(own.position(), theirs.position()));  // what it may not hear is behind it, too
}

TEST_CASE("each change at a path and below it is told, in order, with what the node is then") {
    Alone alone;
    Sync zk = alone.open();
    REQUIRE(zk.create("/a", "old"));
    const Zxid from = alone.applied();
    const Subscription stream = zk.subscribe("/a", {from});
    CHECK(stream.error() == Errc::ok);
    REQUIRE(zk.create("/a/x", "1"));
    REQUIRE(zk.create("/ab", "beside"));
    REQUIRE(zk.set("/a", "new"));
    REQUIRE(zk.set("/a/x", coord::null_data));
    REQUIRE(zk.create("/a/x/deep", "2"));
    CHECK(zk.set("/a/x", "", 7).error() == Errc::bad_version);
    REQUIRE(zk.remove("/a/x/deep"));
    REQUIRE(zk.create("/a/n-", "", CreateMode::persistent_sequential));
    const Changes changes = take_all(stream);
    CHECK(lines(changes) == Lines{"+/a/x 1", "=/a new", "=/a/x null", "+/a/x/deep 2", "-/a/x/deep",
                                  "+/a/n-0000000001"});
    REQUIRE(changes.size() == 6);
    CHECK(changes[0].stat.version == 0);
    CHECK(changes[0].position.zxid == changes[0].stat.czxid);
    CHECK(changes[1].stat.version == 1);
    CHECK(changes[1].stat.num_children == 1);
    CHECK(changes[1].stat.mzxid == changes[1].position.zxid);
    CHECK(changes[2].stat.version == 1);
    CHECK(changes[4].stat.czxid == changes[3].position.zxid);
    CHECK(changes[4].stat.data_length == 1);
    for (const Change& each : changes) CHECK((each.error == Errc::ok && each.is_last));
    for (std::size_t i = 1; i < changes.size(); i++) {
        CHECK(changes[i - 1].position.zxid < changes[i].position.zxid);
    }
    CHECK(stream.take()->empty());
}

TEST_CASE("without data a change has none; the root's stream has every change") {
    Alone alone;
    Sync zk = alone.open();
    coord::SubscribeOptions options{alone.applied()};
    options.with_data = false;
    const Subscription lean = zk.subscribe("/", options);
    const Subscription full = zk.subscribe("/", {alone.applied()});
    REQUIRE(zk.create("/a", "data"));
    REQUIRE(zk.set("/zookeeper/quota", coord::null_data));
    CHECK(take(lean) == Lines{"+/a", "=/zookeeper/quota"});
    CHECK(take(full) == Lines{"+/a data", "=/zookeeper/quota null"});
}

TEST_CASE("the parts of a multi are told one by one, the last one as such; what failed never was") {
    Alone alone;
    Sync zk = alone.open();
    REQUIRE(zk.create("/a", ""));
    const Subscription below = zk.subscribe("/a", {alone.applied()});
    const Subscription all = zk.subscribe("/", {alone.applied()});
    CHECK_FALSE(zk.multi({Op::create("/a/no", ""), Op::set("/a", "no"), Op::check("/none")}));
    REQUIRE(zk.multi({Op::create("/a/x", "1"), Op::set("/a/x", "2"), Op::create("/b", "3"),
                      Op::remove("/a/x"), Op::create("/c", "4")}));
    REQUIRE(zk.set("/a", "5"));
    const Changes few = take_all(below);
    CHECK(lines(few) == Lines{"+/a/x 1 ..", "=/a/x 2 ..", "-/a/x", "=/a 5"});
    CHECK(take(all) == Lines{"+/a/x 1 ..", "=/a/x 2 ..", "+/b 3 ..", "-/a/x ..", "+/c 4", "=/a 5"});
    REQUIRE(few.size() == 4);
    CHECK(few[0].position.index == 1);  // of the changes of all paths
    CHECK(few[1].position.index == 2);
    CHECK(few[2].position.index == ChangePosition::whole);
    CHECK(few[2].stat.version == 1);
    CHECK(few[0].position.zxid == few[2].position.zxid);
}

TEST_CASE("what goes by itself is told: with its session, and where it is due") {
    coord::ReplicaOptions reaping = keeping(1u << 20);
    reaping.timing.reap_interval = seconds(1);
    Alone alone(reaping);
    Sync zk = alone.open();
    Sync other = alone.open();
    REQUIRE(zk.create("/box", "", CreateMode::container));
    const Subscription stream = zk.subscribe("/", {alone.applied()});
    REQUIRE(other.create("/e2", "", CreateMode::ephemeral));
    REQUIRE(other.create("/e1", "last", CreateMode::ephemeral));
    REQUIRE(zk.create("/box/x", ""));
    REQUIRE(zk.remove("/box/x"));
    REQUIRE(other.close());
    for (int i = 0; i < 50; i++) alone.poll(milliseconds(100));
    const Changes changes = take_all(stream);
    CHECK(lines(changes) ==
          Lines{"+/e2", "+/e1 last", "+/box/x", "-/box/x", "-/e1 ..", "-/e2", "-/box"});
    REQUIRE(changes.size() == 7);
    CHECK(changes[4].stat.ephemeral_owner == other.session().id());
    CHECK(changes[4].stat.data_length == 4);
}

// ---- Going on

TEST_CASE("whoever has read a state goes on from its zxid, and misses nothing") {
    Alone alone;
    Sync zk = alone.open();
    for (const char* path : {"/a", "/a/1", "/a/2"}) REQUIRE(zk.create(path, path));
    std::map<Bytes, Bytes> mirror;
    std::optional<Subscription> stream;
    zk.session().read(Query::list("/a"), [&](coord::Result<coord::Found> found) {
        REQUIRE(found);
        for (const coord::Child& each : found->nodes) mirror["/a/" + each.name] = each.bytes;
        stream = zk.session().subscribe("/a", {found->zxid});
    });
    zk.session().set("/a/1", "at once", {});  // applied before the answer is told
    zk.session().remove("/a/2", {});
    alone.polls();
    REQUIRE(stream);
    for (const Change& each : take_all(*stream)) {
        if (each.type == EventType::deleted) mirror.erase(each.path);
        if (each.type != EventType::deleted) mirror[each.path] = each.bytes;
    }
    CHECK(mirror == std::map<Bytes, Bytes>{{"/a/1", "at once"}});
}

TEST_CASE("from every position the rest comes, and nothing twice: in the midst of a multi, too") {
    Alone alone(1u << 16);
    Sync zk = alone.open();
    REQUIRE(zk.create("/a", ""));
    const ChangePosition from(alone.applied());
    for (int i = 0; i < 5; i++) {
        REQUIRE(zk.multi({Op::create("/a/x", "1"), Op::create("/b", "no"), Op::set("/a/x", "2"),
                          Op::remove("/b"), Op::remove("/a/x")}));
        REQUIRE(zk.set("/a", std::to_string(i)));
    }
    const Changes all = take_all(zk.subscribe("/a", {from}));
    REQUIRE(all.size() == 20);
    for (std::size_t taken = 0; taken <= all.size(); taken++) {
        CAPTURE(taken);
        const Subscription first = zk.subscribe("/a", {from});
        Changes parts;
        while (parts.size() < taken) parts.push_back(first.take(1)->front());
        const ChangePosition at = taken == 0 ? from : parts.back().position;
        for (const ChangePosition& position : {at, first.position()}) {
            Changes rest = parts;
            for (Change& each : take_all(zk.subscribe("/a", {position}), 3)) rest.push_back(each);
            CHECK(lines(rest) == lines(all));
            for (std::size_t i = 0; i < rest.size() && i < all.size(); i++) {
                CHECK(is_same(rest[i].position, all[i].position));
            }
        }
    }
    const Subscription later = zk.subscribe("/a", {all[9].position.zxid});  // the zxid alone
    CHECK(take(later).size() == 9);
}

TEST_CASE("a position that is still to come: what is before it is not told") {
    Alone alone;
    Sync zk = alone.open();
    const Zxid ahead(alone.applied().value + 2);
    const Subscription stream = zk.subscribe("/", {ahead});
    for (const char* path : {"/1", "/2"}) REQUIRE(zk.create(path, ""));
    CHECK(take(stream).empty());
    CHECK(is_same(stream.position(), ChangePosition(ahead)));
    REQUIRE(zk.create("/3", ""));
    CHECK(take(stream) == Lines{"+/3"});
}

// ---- What is kept

TEST_CASE("what was not read in time is snapshot_needed; a quiet path's reader loses nothing") {
    Alone alone(16 * 1024);
    Sync zk = alone.open();
    REQUIRE(zk.create("/busy", ""));
    REQUIRE(zk.create("/quiet", ""));
    const ChangePosition from(alone.applied());
    const Subscription slow = zk.subscribe("/busy", {from});
    const Subscription quiet = zk.subscribe("/quiet", {from});
    const Bytes value(100, 'v');
    REQUIRE(zk.set("/busy", "first"));
    for (int i = 0; i < 500; i++) REQUIRE(zk.set("/busy", value));
    CHECK(slow.take().error() == Errc::snapshot_needed);
    CHECK(slow.error() == Errc::snapshot_needed);
    CHECK(is_same(slow.position(), ChangePosition(Zxid(from.zxid.value + 1), 0)));
    CHECK(zk.subscribe("/busy", {slow.position()}).error() == Errc::snapshot_needed);
    CHECK(zk.subscribe("/quiet", {from}).error() == Errc::snapshot_needed);
    CHECK(quiet.error() == Errc::ok);
    CHECK(quiet.position().zxid == alone.applied());
    CHECK(take(quiet).empty());
    REQUIRE(zk.set("/quiet", "1"));
    CHECK(take(quiet) == Lines{"=/quiet 1"});
    for (int i = 0; i < 500; i++) REQUIRE(zk.set("/busy", value));
    CHECK(take(quiet).empty());
    const Subscription again = zk.subscribe("/busy", {alone.applied()});
    REQUIRE(zk.set("/busy", "new"));
    CHECK(take(again) == Lines{"=/busy new"});
}

TEST_CASE("what is kept is what fits, to the last change: from there on, and not from before it") {
    for (const std::uint32_t bytes : {1u, 300u, 1000u, 5000u, 200000u}) {
        CAPTURE(bytes);
        Alone alone(bytes);
        Sync zk = alone.open();
        REQUIRE(zk.create("/a", ""));
        std::vector<Zxid> zxids;
        coord::Rng rng(bytes);
        for (int i = 0; i < 300; i++) {
            REQUIRE(zk.set("/a", Bytes(static_cast<std::size_t>(rng.below(200)), 'v')));
            zxids.push_back(alone.applied());
        }
        std::size_t kept = 0;
        for (std::size_t i = 0; i < zxids.size(); i++) {
            const Subscription stream = zk.subscribe("/", {zxids[i]});
            if (stream.error() != Errc::ok) {
                CHECK(stream.error() == Errc::snapshot_needed);
                CHECK(kept == 0);  // where one can go on, one can from all that is later
                continue;
            }
            kept += 1;
            CHECK(take_all(stream).size() == zxids.size() - 1 - i);
        }
        CHECK(kept >= 1);
        CHECK((kept - 1) * 120 <= bytes + 1000);
        CHECK(kept * 400 >= bytes / 2);  // of what there is room for not much is given away
    }
}

TEST_CASE("a transaction larger than what is kept: whoever was before it cannot go on") {
    Alone alone(4096);
    Sync zk = alone.open();
    const ChangePosition from(alone.applied());
    const Subscription stream = zk.subscribe("/", {from});
    std::vector<Op> parts;
    std::vector<Bytes> paths;
    for (int i = 0; i < 100; i++) paths.push_back("/n" + std::to_string(i));
    for (const Bytes& path : paths) parts.push_back(Op::create(path, "12345678901234567890"));
    REQUIRE(zk.multi(parts));
    CHECK(stream.take().error() == Errc::snapshot_needed);
    const Subscription behind = zk.subscribe("/", {alone.applied()});
    REQUIRE(zk.set("/n1", Bytes(100000, 'x')));  // one change of that size is kept
    const Changes changes = take_all(behind);
    REQUIRE(changes.size() == 1);
    CHECK(changes[0].bytes.size() == 100000);
    REQUIRE(zk.set("/n1", "small"));
    CHECK(take(behind) == Lines{"=/n1 small"});
    CHECK(zk.subscribe("/", {from}).error() == Errc::snapshot_needed);
}

TEST_CASE("a replica that has kept nothing says so, and a restarted one has what its log has") {
    coord::ReplicaOptions options = keeping(1u << 20);
    options.snapshot_every_entries = 20;
    options.log_entries_kept = 5;
    coord::MemoryStorage disk;
    coord::Time now{1000000000};
    ChangePosition from;
    std::optional<coord::Replica> replica(std::in_place, options, disk);
    const auto pump = [&] {
        now = now + milliseconds(1);
        replica->poll(now);
        return true;
    };
    {
        auto session = Sync::open(*replica, {seconds(1000)}, pump);
        REQUIRE(session);
        const Sync zk(*session, pump);
        REQUIRE(zk.create("/a", ""));
        from = ChangePosition(replica->machine().applied());
        for (int i = 0; i < 30; i++) REQUIRE(zk.set("/a", std::to_string(i)));
    }
    replica.emplace(options, disk);
    auto session = Sync::open(*replica, {}, pump);
    REQUIRE(session);
    const Sync zk(*session, pump);
    CHECK(zk.subscribe("/a", {from}).error() == Errc::snapshot_needed);
    const Zxid loaded = replica->log().snapshot_position().zxid;
    const Lines since = take(zk.subscribe("/a", {loaded}));
    REQUIRE(since.size() >= 2);
    CHECK(since.back() == "=/a 29");
    CHECK(since.size() == 30 - (loaded.counter() - from.zxid.counter()));
}

// ---- Being told

TEST_CASE("a reader is told once, and again when it has read and there is more") {
    Alone alone;
    Sync zk = alone.open();
    int told = 0;
    const Subscription stream = zk.session().subscribe("/a", {alone.applied()}, [&] { told += 1; });
    REQUIRE(zk.create("/other", ""));
    alone.polls();
    CHECK(told == 0);
    for (const char* path : {"/a", "/a/1", "/a/2", "/a/3"}) REQUIRE(zk.create(path, ""));
    alone.polls();
    CHECK(told == 1);
    CHECK(stream.take(1)->size() == 1);
    alone.polls();
    CHECK(told == 2);
    CHECK(take(stream).size() == 3);
    REQUIRE(zk.set("/other", "1"));
    alone.polls();
    CHECK(told == 2);
    REQUIRE(zk.set("/a", "1"));
    CHECK(told == 3);
    CHECK(take(stream).size() == 1);
}

TEST_CASE("a poll is due where somebody is to be told, or has left something") {
    Alone alone;
    Sync zk = alone.open();
    for (const char* path : {"/a", "/b"}) REQUIRE(zk.create(path, ""));
    alone.polls();
    const auto is_due = [&] { return alone.replica.next_deadline() <= alone.now; };
    REQUIRE_FALSE(is_due());
    int told = 0;
    const auto calls = alone.replica.counters().calls;
    const Subscription stream = zk.session().subscribe("/", {Zxid{}}, [&] { told += 1; });
    CHECK(stream.error() == Errc::ok);
    CHECK(is_due());
    CHECK(alone.replica.counters().calls > calls);
    alone.poll();
    CHECK(told == 1);
    CHECK_FALSE(is_due());
    CHECK(stream.take(1)->size() == 1);
    CHECK(is_due());
}

TEST_CASE("called with the changes themselves: so many a poll, in order, the end last and once") {
    Alone alone;
    Sync zk = alone.open();
    for (int i = 0; i < 10; i++) REQUIRE(zk.create("/" + std::to_string(i), ""));
    coord::SubscribeOptions options;
    options.from = coord::Zxid{zk.session().id().value};  // behind the founding
    options.changes_a_poll = 4;
    Lines heard;
    const Subscription stream = zk.session().on_changes("/", options, [&](const Change& change) {
        heard.push_back(change.error == Errc::ok ? line(change) : coord::name(change.error));
    });
    CHECK(heard.empty());
    alone.poll();
    CHECK(heard == Lines{"+/0", "+/1", "+/2", "+/3"});
    alone.poll();
    CHECK(heard.size() == 8);
    alone.polls();
    CHECK(heard.size() == 10);
    heard.clear();
    REQUIRE(zk.close());
    alone.polls();
    CHECK(heard == Lines{"session_expired"});
    CHECK(stream.error() == Errc::session_expired);
    CHECK(stream.position().zxid.counter() + 1 == alone.applied().counter());
}

TEST_CASE("whoever lets go of a stream hears no more of it, in its own callback, too") {
    Alone alone;
    Sync zk = alone.open();
    for (int i = 0; i < 10; i++) REQUIRE(zk.create("/" + std::to_string(i), ""));
    int told = 0, called = 0;
    std::optional<Subscription> one, other, third;
    one = zk.session().on_changes("/", {}, [&](const Change&) {
        called += 1;
        if (called == 3) one.reset();
        if (called == 3) other.reset();
    });
    other = zk.session().subscribe("/", {}, [&] { told += 1; });
    third = zk.session().subscribe("/", {}, [&] { third.reset(); });
    Subscription copy = *third;
    other.reset();
    alone.polls();
    CHECK(called == 3);
    CHECK(told == 0);
    CHECK_FALSE(third);
    CHECK(take(copy).size() == 11);  // a copy goes on; with the config as it was founded
    copy = Subscription();
    CHECK(copy.error() == Errc::api_error);
    CHECK(copy.take().error() == Errc::api_error);
    REQUIRE(zk.create("/more", ""));
    alone.polls();
}

TEST_CASE("a stream ends with its session and its replica, and can be asked all the same") {
    std::optional<Subscription> mine, others;
    int told = 0;
    {
        Alone alone;
        Sync zk = alone.open();
        Sync other = alone.open();
        mine = zk.session().subscribe("/", {alone.applied()}, [&] { told += 1; });
        others = other.session().subscribe("/", {alone.applied()}, [] {});
        REQUIRE(zk.create("/a", ""));
        REQUIRE(zk.close());
        alone.polls();
        CHECK(told >= 1);
        CHECK(mine->take().error() == Errc::session_expired);
        CHECK(zk.subscribe("/", {}).error() == Errc::session_expired);
        CHECK(take(*others) == Lines{"+/a"});
    }
    CHECK(mine->error() == Errc::session_expired);
    CHECK(others->error() == Errc::replica_failed);
    CHECK(others->take().error() == Errc::replica_failed);
    CHECK(others->position().zxid != Zxid{});
}

TEST_CASE("errors are there at once, and told") {
    coord::ReplicaOptions options = keeping(1000);
    options.limits.watches_per_session_max = 2;
    Alone alone(options);
    Sync zk = alone.open();
    int told = 0;
    const auto wake = [&] { told += 1; };
    for (const char* path : {"", "a", "/a/", "/a//b"}) {
        const Subscription none = zk.session().subscribe(path, {alone.applied()}, wake);
        CHECK(none.error() == Errc::bad_arguments);
        CHECK(none.take().error() == Errc::bad_arguments);
        alone.poll();
    }
    CHECK(told == 4);
    CHECK(zk.subscribe(Bytes("/").append(2000, 'x'), {alone.applied()}).error() == Errc::too_large);
    {
        const Subscription one = zk.subscribe("/", {alone.applied()});
        const Subscription two = zk.subscribe("/", {alone.applied()});
        CHECK(two.error() == Errc::ok);
        CHECK(zk.subscribe("/", {alone.applied()}).error() == Errc::too_many);
    }
    CHECK(zk.subscribe("/", {alone.applied()}).error() == Errc::ok);
    Alone keeps_none(0);
    Sync there = keeps_none.open();
    CHECK(there.subscribe("/", {keeps_none.applied()}).error() == Errc::api_error);
    CHECK(there.take(there.subscribe("/", {})).error() == Errc::api_error);
}

TEST_CASE("a handle below a path: its streams are of what is there, as it looks from there") {
    Alone alone;
    Sync zk = alone.open();
    for (const char* path : {"/app", "/app/a", "/apple"}) REQUIRE(zk.create(path, ""));
    const Sync app = zk.below("/app");
    const Subscription all = app.subscribe("/", {alone.applied()});
    const Subscription a = app.subscribe("/a", {alone.applied()});
    CHECK(app.subscribe("a", {alone.applied()}).error() == Errc::bad_arguments);
    CHECK(app.subscribe("", {alone.applied()}).error() == Errc::bad_arguments);
    CHECK(zk.below("app").subscribe("/a", {alone.applied()}).error() == Errc::bad_arguments);
    REQUIRE(zk.set("/app", "1"));
    REQUIRE(zk.set("/apple", "2"));
    REQUIRE(zk.set("/app/a", "3"));
    REQUIRE(zk.create("/app/a/b", "4"));
    REQUIRE(zk.create("/a", "5"));
    CHECK(take(all) == Lines{"=/ 1", "=/a 3", "+/a/b 4"});
    CHECK(take(a) == Lines{"=/a 3", "+/a/b 4"});
}

TEST_CASE("Sync waits for changes, and says so where none come") {
    Alone alone;
    Sync zk = alone.open();
    const Subscription stream = zk.subscribe("/", {alone.applied()});
    zk.session().create("/a", "", {});
    const auto changes = zk.take(stream);
    REQUIRE(changes);
    CHECK(lines(*changes) == Lines{"+/a"});
    alone.patience = 5;
    const Sync hasty(zk.session(), alone.pump(5));
    CHECK(hasty.take(stream).error() == Errc::operation_timeout);
    Errc inside = Errc::ok;
    zk.session().sync([&](coord::Result<void>) { inside = zk.take(stream).error(); });
    alone.polls();
    CHECK(inside == Errc::api_error);
}

TEST_CASE("many readers: each gets its own changes, whoever else reads, comes and goes") {
    Alone alone(1u << 18);
    Sync zk = alone.open();
    coord::Rng rng(11);
    struct Reader {
        Bytes top;
        std::optional<Subscription> stream;
        Lines got;
        Lines wanted;
    };
    std::vector<Reader> readers(40);
    const std::vector<Bytes> paths = {"/", "/a", "/a/b", "/a/b/c", "/d", "/d/e", "/f"};
    for (std::size_t i = 0; i < readers.size(); i++) {
        readers[i].top = paths[i % paths.size()];
        readers[i].stream = zk.session().subscribe(readers[i].top, {alone.applied()}, [] {});
    }
    for (std::size_t i = 1; i < paths.size(); i++) REQUIRE(zk.create(paths[i], "0"));
    for (Reader& each : readers) {
        for (std::size_t i = 1; i < paths.size(); i++) {
            const bool is_below = each.top == "/" || each.top == paths[i] ||
                                  paths[i].rfind(each.top + "/", 0) == 0;
            if (is_below) each.wanted.push_back("+" + paths[i] + " 0");
        }
    }
    for (int turn = 0; turn < 600; turn++) {
        const Bytes& path = paths[1 + static_cast<std::size_t>(rng.below(paths.size() - 1))];
        REQUIRE(zk.set(path, std::to_string(turn)));
        for (Reader& each : readers) {
            const bool is_below =
                each.top == "/" || each.top == path || path.rfind(each.top + "/", 0) == 0;
            if (is_below) each.wanted.push_back("=" + path + " " + std::to_string(turn));
        }
        Reader& reader = readers[static_cast<std::size_t>(rng.below(readers.size()))];
        const auto taken = reader.stream->take(1 + static_cast<std::size_t>(rng.below(5)));
        REQUIRE(taken);
        for (const Change& each : *taken) reader.got.push_back(line(each));
        if (rng.below(4) != 0) continue;
        const ChangePosition at = reader.stream->position();
        reader.stream = zk.session().subscribe(reader.top, {at}, [] {});
    }
    for (Reader& each : readers) {
        for (const Change& change : take_all(*each.stream)) each.got.push_back(line(change));
        CHECK(each.got == each.wanted);
    }
}

// ---- Three voters

namespace {

struct Ensemble : session_rig::Ensemble {
    static coord::SimulationOptions keeping_options(std::uint64_t seed) {
        coord::SimulationOptions result = options(seed);
        result.replica.change_bytes_kept = 1u << 20;
        result.replica.snapshot_every_entries = 40;
        result.replica.log_entries_kept = 10;
        return result;
    }
    explicit Ensemble(std::uint64_t seed = 1) : session_rig::Ensemble(keeping_options(seed)) {}
};

}  // namespace

TEST_CASE("a stream goes on at another replica, where its session is attached, from any position") {
    Ensemble ensemble;
    Sync writer = ensemble.open(ensemble.leader());
    REQUIRE(writer.create("/a", ""));
    Sync reader = ensemble.open(ensemble.follower(0));
    REQUIRE(reader.sync());
    const auto found = reader.read(Query::list("/a"));
    REQUIRE(found);
    Subscription stream = reader.subscribe("/a", {found->zxid});
    for (int i = 0; i < 6; i++) {
        REQUIRE(writer.multi({Op::create("/a/x", "1"), Op::set("/a", "2"), Op::remove("/a/x")}));
    }
    REQUIRE(reader.sync());
    Lines got;
    for (std::uint32_t at = 0; got.size() < 18; at++) {
        const auto taken = stream.take(4);
        REQUIRE(taken);
        REQUIRE(!taken->empty());
        for (const Change& each : *taken) got.push_back(line(each));
        const std::uint32_t next = at % 2 == 0 ? ensemble.leader() : ensemble.follower(1);
        const auto attached =
            Sync::attach(ensemble.sim.replica(next), reader.session().id(),
                         reader.session().password(), ensemble.sim.pump());
        REQUIRE(attached);
        const ChangePosition position = stream.position();
        reader = Sync{*attached, ensemble.sim.pump()};
        REQUIRE(reader.sync());
        if (at == 0) CHECK(stream.error() == Errc::session_moved);
        stream = reader.subscribe("/a", {position});
    }
    Lines wanted;
    for (int i = 0; i < 6; i++) {
        for (const char* each : {"+/a/x 1 ..", "=/a 2 ..", "-/a/x"}) wanted.push_back(each);
    }
    CHECK(got == wanted);
}

TEST_CASE("where a snapshot takes the place of the changes, a stream is over and says so") {
    Ensemble ensemble;
    Sync writer = ensemble.open(ensemble.leader(), seconds(60));
    REQUIRE(writer.create("/a", ""));
    const std::uint32_t away = ensemble.follower(0);
    Sync reader = ensemble.open(away, seconds(60));
    REQUIRE(reader.sync());
    int told = 0;
    const Zxid seen = ensemble.sim.replica(away).machine().applied();
    const Subscription stream =
        reader.session().subscribe("/quiet", {seen}, [&] { told += 1; });
    const Subscription ahead = reader.session().subscribe("/a", {Zxid(seen.value + 1000)});
    ensemble.sim.isolate(away);
    ensemble.sim.run_for(seconds(5));  // now nothing is kept for it
    for (int i = 0; i < 300; i++) REQUIRE(writer.set("/a", std::to_string(i)));
    ensemble.sim.heal();
    REQUIRE(reader.sync());
    CHECK(ensemble.sim.replica(away).counters().snapshots_installed == 1);
    ensemble.sim.run_for(seconds(1));
    CHECK(told == 1);
    CHECK(stream.take().error() == Errc::snapshot_needed);
    CHECK(is_same(stream.position(), ChangePosition(seen)));
    CHECK(ahead.error() == Errc::ok);  // nothing of what it wants was left out
    CHECK(reader.subscribe("/a", {seen}).error() == Errc::snapshot_needed);
    const auto found = reader.read(Query::list("/a"));
    REQUIRE(found);
    const Subscription again = reader.subscribe("/a", {found->zxid});
    REQUIRE(writer.set("/a", "more"));
    REQUIRE(reader.sync());
    CHECK(take(again) == Lines{"=/a more"});
}

TEST_CASE("every replica numbers the changes of a transaction alike") {
    Ensemble ensemble(5);
    Sync zk = ensemble.open(1, seconds(60));
    Sync gone = ensemble.open(2, seconds(60));
    const ChangePosition from(ensemble.sim.replica(1).machine().applied());
    for (const char* path : {"/c", "/a", "/b"}) {
        REQUIRE(gone.create(path, path, CreateMode::ephemeral));
    }
    REQUIRE(zk.multi({Op::create("/m", "1"), Op::set("/m", "2"), Op::remove("/a")}));
    REQUIRE(gone.close());
    std::vector<Changes> all;
    for (std::uint32_t at = 1; at <= 3; at++) {
        Sync reader = ensemble.open(at);
        REQUIRE(reader.sync());
        all.push_back(take_all(reader.subscribe("/", {from})));
    }
    for (const Changes& each : all) {
        CHECK(lines(each) == Lines{"+/c /c", "+/a /a", "+/b /b", "+/m 1 ..", "=/m 2 ..", "-/a",
                                   "-/b ..", "-/c"});
        for (std::size_t i = 0; i < each.size() && i < all[0].size(); i++) {
            CHECK(is_same(each[i].position, all[0][i].position));
        }
    }
}

TEST_SUITE_END();
