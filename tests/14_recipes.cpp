// Chapter 14: the lock. Standalone replicas in virtual time first; then three voters in a
// simulation, where holders and waiters are cut off, stopped and killed.

#include <doctest/doctest.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "session_rig.hpp"
#include "support.hpp"

namespace {

using coord::Bytes;
using coord::BytesView;
using coord::CreateMode;
using coord::Errc;
using coord::Grant;
using coord::Lock;
using coord::milliseconds;
using coord::seconds;
using coord::Session;
using coord::Sync;
using coord::Time;

struct Alone {
    coord::MemoryStorage disk;
    coord::Replica replica;
    Time now{1000000000};

    explicit Alone(const coord::ReplicaOptions& options = {}) : replica(options, disk) {}

    void poll(coord::Duration by = milliseconds(1)) {
        now = now + by;
        replica.poll(now);
    }
    void polls(int count = 30) {
        for (int i = 0; i < count; i++) poll();
    }
    Sync open(coord::Duration timeout = seconds(10)) {
        const coord::Pump pump = [this] {
            poll();
            return true;
        };
        auto opened = Sync::open(replica, {timeout}, pump);
        REQUIRE(opened);
        return Sync{*opened, pump};
    }
    Session session(coord::Duration timeout = seconds(10)) { return open(timeout).session(); }
    std::vector<Bytes> queue(BytesView path = "/lock") {
        std::vector<Bytes> names;
        (void)replica.tree().children(path, "", 1000, names);
        return names;
    }
};

struct Ensemble : session_rig::Ensemble {
    using session_rig::Ensemble::Ensemble;
    Session session(std::uint32_t at, coord::Duration timeout = seconds(2)) {
        return session_rig::Ensemble::open(at, timeout).session();
    }
    Sync open(std::uint32_t at) { return session_rig::Ensemble::open(at, seconds(60)); }
    std::vector<Bytes> queue(std::uint32_t at, BytesView path = "/lock") {
        std::vector<Bytes> names;
        (void)sim.replica(at).tree().children(path, "", 1000, names);
        return names;
    }
};

// A lock, and what its owner has heard.
struct Contender {
    std::vector<Errc> answers;
    std::vector<Errc> losses;
    Grant grant;
    std::unique_ptr<Lock> lock;

    explicit Contender(const Session& session, BytesView path = "/lock")
        : lock(new Lock(session, path)) {
        lock->on_lost([this](Errc error) { losses.push_back(error); });
    }
    coord::OnGranted answer() {
        return [this](const coord::Result<Grant>& result) {
            answers.push_back(result.error());
            if (result) grant = *result;
        };
    }
    Contender& acquire() { return lock->acquire(answer()), *this; }
    bool is_granted() const { return !answers.empty() && answers.back() == Errc::ok; }
    bool is_silent() const { return answers.empty() && losses.empty(); }
};

using Contenders = std::vector<std::unique_ptr<Contender>>;

}  // namespace

TEST_SUITE("14 recipes") {

// -------------------------------------------------------------------------------------------------
// One lock

TEST_CASE("lock: acquire grants, with the zxid of the node as the token") {
    Alone alone;
    const Session session = alone.session();
    Contender holder{session};
    CHECK(holder.lock->path() == "/lock");
    CHECK(holder.lock->fencing_token() == 0);
    CHECK(holder.lock->certain_until() == Time{});
    CHECK_FALSE(holder.lock->is_held(alone.now));
    holder.acquire();
    CHECK(holder.is_silent());  // never inside the call
    alone.polls();
    REQUIRE(holder.answers == std::vector<Errc>{Errc::ok});
    const auto node = alone.replica.tree().find(holder.grant.node);
    REQUIRE(node);
    CHECK(node->stat.czxid.value == holder.grant.fencing_token);
    CHECK(node->stat.ephemeral_owner == session.id());
    CHECK(holder.lock->fencing_token() == holder.grant.fencing_token);
    CHECK(holder.lock->is_held(alone.now));
    CHECK(holder.lock->certain_until() == session.certain_until());
    CHECK_FALSE(holder.lock->is_held(holder.lock->certain_until()));
    CHECK(holder.lock->is_held(Time{holder.lock->certain_until().ns - 1}));
    CHECK(holder.losses.empty());
}

TEST_CASE("lock: nodes are laid out as Curator does") {
    Alone alone;
    const Session session = alone.session();
    Contenders all;
    for (int i = 0; i < 3; i++) {
        all.push_back(std::make_unique<Contender>(session));
        all.back()->acquire();
    }
    alone.polls();
    const std::vector<Bytes> names = alone.queue();
    REQUIRE(names.size() == 3);
    std::vector<Bytes> ids;
    for (const Bytes& name : names) {
        INFO(name);
        REQUIRE(name.size() == 3 + 36 + 6 + 10);
        CHECK(name.substr(0, 3) == "_c_");
        const Bytes uuid = name.substr(3, 36);
        for (std::size_t i = 0; i < uuid.size(); i++) {
            const bool is_dash = i == 8 || i == 13 || i == 18 || i == 23;
            const bool is_hex = Bytes("0123456789abcdef").find(uuid[i]) != Bytes::npos;
            CHECK((is_dash ? uuid[i] == '-' : is_hex));
        }
        CHECK(name.substr(39, 6) == "-lock-");
        CHECK(coord::sequence_of(name));
        for (const Bytes& other : ids) CHECK(other != uuid);
        ids.push_back(uuid);
    }
}

TEST_CASE("lock: missing parents are created, persistent; those that exist stay") {
    Alone alone;
    Sync zk = alone.open();
    REQUIRE(zk.create("/a", "kept"));
    Contender holder{zk.session(), "/a/b/c/d"};
    holder.acquire();
    alone.polls();
    REQUIRE(holder.is_granted());
    CHECK(zk.get("/a")->bytes == "kept");
    for (const char* path : {"/a/b", "/a/b/c", "/a/b/c/d"}) {
        const auto stat = zk.exists(path);
        REQUIRE(stat);
        CHECK(stat->ephemeral_owner == coord::SessionId{});
    }
    CHECK(alone.queue("/a/b/c/d").size() == 1);
    Contender other{zk.session(), "/a/b/c/e"};  // some are there
    other.acquire();
    alone.polls();
    CHECK(other.is_granted());
}

TEST_CASE("lock: the root can be one") {
    Alone alone;
    const Session session = alone.session();
    Contender first{session, "/"}, second{session, "/"};
    first.acquire(), second.acquire();
    alone.polls();
    CHECK(first.is_granted());
    CHECK(second.is_silent());
    first.lock->release();
    alone.polls();
    CHECK(second.is_granted());
    CHECK(second.grant.node.substr(0, 4) == "/_c_");
}

TEST_CASE("lock: paths that are none are bad_arguments") {
    Alone alone;
    const Session session = alone.session();
    for (const char* path : {"", "lock", "/lock/", "//", "/a//b", "/.."}) {
        INFO(path);
        Contender contender{session, path};
        contender.acquire();
        CHECK(contender.is_silent());
        alone.polls();
        CHECK(contender.answers == std::vector<Errc>{Errc::bad_arguments});
        contender.lock->acquire_for(seconds(1), contender.answer());
        contender.lock->try_acquire(contender.answer());
        alone.polls();
        CHECK(contender.answers.size() == 3);
    }
    CHECK(alone.queue("/") == std::vector<Bytes>{"zookeeper"});
}

TEST_CASE("lock: a parent that cannot have children is told") {
    Alone alone;
    Sync zk = alone.open();
    REQUIRE(zk.create("/e", "", CreateMode::ephemeral));
    Contender contender{zk.session(), "/e"};
    contender.acquire();
    alone.polls();
    CHECK(contender.answers == std::vector<Errc>{Errc::no_children_for_ephemerals});
    Contender deeper{zk.session(), "/e/x/y"};
    deeper.acquire();
    alone.polls();
    REQUIRE(deeper.answers.size() == 1);
    CHECK(deeper.answers[0] != Errc::ok);
    CHECK(alone.queue("/e").empty());
}

TEST_CASE("lock: release removes the node and then answers") {
    Alone alone;
    Contender holder{alone.session()};
    holder.acquire();
    alone.polls();
    REQUIRE(holder.is_granted());
    bool released = false;
    holder.lock->release([&](coord::Result<void> result) {
        CHECK(result);
        CHECK(alone.queue().empty());
        released = true;
    });
    CHECK_FALSE(released);
    CHECK_FALSE(holder.lock->is_held(alone.now));  // at once
    CHECK(holder.lock->fencing_token() == 0);
    CHECK(holder.lock->certain_until() == Time{});
    alone.polls();
    CHECK(released);
    CHECK(holder.losses.empty());
    CHECK(holder.answers.size() == 1);
}

TEST_CASE("lock: release with nothing to give back is a success") {
    Alone alone;
    Contender contender{alone.session()};
    int released = 0;
    const auto done = [&](coord::Result<void> result) {
        CHECK(result);
        released += 1;
    };
    contender.lock->release(done);
    CHECK(released == 0);
    alone.polls();
    CHECK(released == 1);
    contender.acquire();
    alone.polls();
    contender.lock->release(done);
    contender.lock->release(done);
    contender.lock->release();
    alone.polls();
    CHECK(released == 3);
    CHECK(contender.losses.empty());
}

TEST_CASE("lock: acquire again after release, at once, with a larger token each time") {
    Alone alone;
    Contender holder{alone.session()};
    std::uint64_t last = 0;
    for (int i = 0; i < 50; i++) {
        holder.acquire();
        alone.polls(10);
        REQUIRE(holder.answers.size() == static_cast<std::size_t>(i) + 1);
        REQUIRE(holder.is_granted());
        CHECK(holder.grant.fencing_token > last);
        last = holder.grant.fencing_token;
        CHECK(alone.queue().size() == 1);
        holder.lock->release();
    }
    alone.polls();
    CHECK(alone.queue().empty());
    CHECK(alone.replica.status().watches == 0);
}

TEST_CASE("lock: acquire while it waits or holds is bad_arguments, and disturbs nothing") {
    Alone alone;
    const Session session = alone.session();
    Contender holder{session}, waiter{session};
    holder.acquire().acquire();
    waiter.acquire().acquire();
    alone.polls();
    CHECK(holder.answers == std::vector<Errc>{Errc::bad_arguments, Errc::ok});
    CHECK(waiter.answers == std::vector<Errc>{Errc::bad_arguments});
    holder.acquire();
    holder.lock->try_acquire(holder.answer());
    holder.lock->acquire_for(milliseconds(1), holder.answer());
    alone.polls();
    CHECK(holder.answers.size() == 5);
    CHECK(holder.lock->is_held(alone.now));
    holder.lock->release();
    alone.polls();
    CHECK(waiter.is_granted());
    CHECK(alone.queue().size() == 1);
}

// -------------------------------------------------------------------------------------------------
// The queue

TEST_CASE("lock: it goes round in the order of the calls; tokens grow; one holds it at a time") {
    Alone alone;
    const Session sessions[] = {alone.session(), alone.session(), alone.session()};
    Contenders all;
    for (std::size_t i = 0; i < 12; i++) {
        all.push_back(std::make_unique<Contender>(sessions[i % 3]));
        all.back()->acquire();
        alone.polls(3);
    }
    alone.polls();
    std::uint64_t last = 0;
    for (std::size_t i = 0; i < all.size(); i++) {
        for (std::size_t j = i; j < all.size(); j++) {
            CHECK(all[j]->lock->is_held(alone.now) == (i == j));
            CHECK(all[j]->is_granted() == (i == j));
        }
        CHECK(all[i]->grant.fencing_token > last);
        last = all[i]->grant.fencing_token;
        all[i]->lock->release();
        alone.polls();
    }
    CHECK(alone.queue().empty());
    CHECK(alone.replica.status().watches == 0);
}

TEST_CASE("lock: K3, a release wakes one waiter, and a waiter that leaves wakes one at the most") {
    Alone alone;
    const Session session = alone.session();
    Contenders all;
    for (int i = 0; i < 20; i++) {
        all.push_back(std::make_unique<Contender>(session));
        all.back()->acquire();
    }
    alone.polls();
    CHECK(alone.replica.status().watches == 39);  // of each its own, and the one before
    std::uint64_t events = alone.replica.counters().events;
    all[10]->lock->release();
    alone.polls();
    CHECK(alone.replica.counters().events - events == 2);
    events = alone.replica.counters().events;
    all[0]->lock->release();
    alone.polls();
    CHECK(alone.replica.counters().events - events == 2);
    CHECK(all[1]->is_granted());
    for (std::size_t i = 2; i < all.size(); i++) CHECK(all[i]->is_granted() == false);
}

TEST_CASE("lock: a queue longer than one answer is read page by page") {
    coord::ReplicaOptions options;
    options.limits.list_max = 3;
    Alone alone{options};
    const Session session = alone.session();
    Contenders all;
    for (int i = 0; i < 11; i++) {
        all.push_back(std::make_unique<Contender>(session));
        all.back()->acquire();
    }
    alone.polls();
    for (std::size_t i = 0; i < all.size(); i++) {
        REQUIRE(all[i]->is_granted());
        if (i + 1 < all.size()) CHECK(all[i + 1]->is_silent());
        all[i]->lock->release();
        alone.polls();
    }
}

TEST_CASE("lock: other clients' nodes stand in the same queue; names without a number do not") {
    Alone alone;
    Sync other = alone.open();
    Sync zk = alone.open();
    REQUIRE(other.create("/lock", ""));
    REQUIRE(other.create("/lock/about", "not a contender"));
    const char* prefixes[] = {
        "/lock/_c_0f7bd4a5-6b1e-4d52-8d1c-5b6a4b9d8f10-lock-",  // Curator
        "/lock/1b9d6bcdbbfd4b2d9b5dab8dfbbd4bed__lock__",         // kazoo
        "/lock/x-",
    };
    std::vector<Bytes> nodes;
    for (const char* prefix : prefixes) {
        const auto made = other.create(prefix, "", CreateMode::ephemeral_sequential);
        REQUIRE(made);
        nodes.push_back(made->path);
    }
    Contender waiter{zk.session()};
    waiter.acquire();
    alone.polls();
    REQUIRE(other.create("/lock/_c_0-lock-", "", CreateMode::ephemeral_sequential));  // after it
    for (const Bytes& node : nodes) {
        CHECK(waiter.is_silent());
        REQUIRE(other.remove(node));
        alone.polls();
    }
    CHECK(waiter.is_granted());
}

TEST_CASE("lock: the order is that of the numbers, not of the names") {
    Alone alone;
    Sync zk = alone.open();
    REQUIRE(zk.create("/lock", ""));
    const auto first = zk.create("/lock/zzz-", "", CreateMode::ephemeral_sequential);
    const auto second = zk.create("/lock/AAA-", "", CreateMode::ephemeral_sequential);
    REQUIRE(first);
    REQUIRE(second);
    Contender waiter{zk.session()};
    waiter.acquire();
    alone.polls();
    REQUIRE(zk.remove(second->path));
    alone.polls();
    CHECK(waiter.is_silent());  // zzz is still there
    REQUIRE(zk.remove(first->path));
    alone.polls();
    CHECK(waiter.is_granted());
}

TEST_CASE("lock: a node of an earlier session of the same client is not taken for its own") {
    Alone alone;
    Sync old = alone.open(seconds(2));
    auto stale = std::make_unique<Contender>(old.session());
    stale->acquire();
    alone.polls();
    REQUIRE(stale->is_granted());
    const Bytes node = stale->grant.node;
    // The client starts over with a new session while the old one is not over yet.
    Contender again{alone.session()};
    again.acquire();
    alone.polls();
    CHECK(again.is_silent());
    CHECK(alone.replica.tree().contains(node));
    REQUIRE(old.close());
    alone.polls();
    CHECK(again.is_granted());
    CHECK(again.grant.node != node);
    CHECK(again.grant.fencing_token > stale->grant.fencing_token);
    CHECK(stale->losses == std::vector<Errc>{Errc::session_expired});
}

TEST_CASE("lock: C16, no wake-up is lost at whatever moment the one before goes") {
    for (int moment = 0; moment < 12; moment++) {
        INFO("after polls: " << moment);
        Alone alone;
        Sync zk = alone.open();
        Contender holder{zk.session()};
        holder.acquire();
        alone.polls();
        REQUIRE(holder.is_granted());
        Contender waiter{alone.session()};
        alone.polls(1);
        waiter.acquire();
        alone.polls(moment);
        holder.lock->release();
        alone.polls();
        CHECK(waiter.answers == std::vector<Errc>{Errc::ok});
        CHECK(alone.replica.status().watches == 1);  // its own: nothing is left on nodes that went
    }
}

TEST_CASE("lock: C16, two before it go together, in either order, at whatever moment") {
    for (int moment = 0; moment < 12; moment++) {
        for (const bool back_first : {false, true}) {
            INFO("after polls: " << moment << ", back first: " << back_first);
            Alone alone;
            Contender one{alone.session()}, two{alone.session()};
            one.acquire();
            alone.polls(2);
            two.acquire();
            alone.polls();
            Contender waiter{alone.session()};
            waiter.acquire();
            alone.polls(moment);
            (back_first ? two : one).lock->release();
            alone.polls(moment % 3);
            (back_first ? one : two).lock->release();
            alone.polls();
            CHECK(waiter.answers == std::vector<Errc>{Errc::ok});
            CHECK(alone.queue().size() == 1);
        }
    }
}

TEST_CASE("lock: a change of the data of a node in the queue is no wake-up and no loss") {
    Alone alone;
    Sync zk = alone.open();
    Contender holder{zk.session()}, waiter{zk.session()};
    holder.acquire(), waiter.acquire();
    alone.polls();
    for (int i = 0; i < 5; i++) {
        for (const Bytes& name : alone.queue()) REQUIRE(zk.set("/lock/" + name, "host"));
        alone.polls();
    }
    CHECK(holder.lock->is_held(alone.now));
    CHECK(holder.losses.empty());
    CHECK(waiter.is_silent());
    REQUIRE(zk.remove(holder.grant.node));  // and is still watched
    alone.polls();
    CHECK(holder.losses == std::vector<Errc>{Errc::lock_lost});
    CHECK(waiter.is_granted());
}

// -------------------------------------------------------------------------------------------------
// try_acquire, acquire_for, cancel

TEST_CASE("lock: try_acquire takes a free lock, and does not wait for one that is not") {
    Alone alone;
    Contender holder{alone.session()}, other{alone.session()};
    holder.lock->try_acquire(holder.answer());
    alone.polls();
    CHECK(holder.is_granted());
    for (int i = 0; i < 5; i++) other.lock->try_acquire(other.answer()), alone.polls();
    CHECK(other.answers == std::vector<Errc>(5, Errc::lock_busy));
    CHECK(alone.queue().size() == 1);
    CHECK(alone.replica.status().watches == 1);
    CHECK(holder.lock->is_held(alone.now));
    holder.lock->release();
    other.lock->try_acquire(other.answer());
    alone.polls();
    CHECK(other.is_granted());
}

TEST_CASE("lock: try_acquire behind a waiter is busy, too, and leaves the queue as it was") {
    Alone alone;
    Contender holder{alone.session()}, waiter{alone.session()}, other{alone.session()};
    holder.acquire();
    alone.polls();
    waiter.acquire();
    alone.polls();
    other.lock->try_acquire(other.answer());
    holder.lock->release();
    alone.polls();
    CHECK(waiter.is_granted());
    CHECK(other.answers == std::vector<Errc>{Errc::lock_busy});
    CHECK(alone.queue().size() == 1);
}

TEST_CASE("lock: acquire_for gives up at its time, and leaves no node") {
    Alone alone;
    Contender holder{alone.session()}, waiter{alone.session()}, last{alone.session()};
    holder.acquire();
    alone.polls();
    waiter.lock->acquire_for(milliseconds(100), waiter.answer());
    last.acquire();
    alone.polls(95);
    CHECK(waiter.is_silent());
    CHECK(alone.queue().size() == 3);
    alone.polls(20);
    CHECK(waiter.answers == std::vector<Errc>{Errc::operation_timeout});
    CHECK(alone.queue().size() == 2);
    holder.lock->release();
    alone.polls(500);
    CHECK(waiter.answers.size() == 1);  // not granted any more
    CHECK(last.is_granted());
    waiter.lock->acquire_for(milliseconds(100), waiter.answer());
    alone.polls(50);
    last.lock->release();
    alone.polls(500);
    CHECK(waiter.is_granted());  // in time, and the time does not take it away
    CHECK(waiter.losses.empty());
    CHECK(waiter.lock->is_held(alone.now));
}

TEST_CASE("lock: acquire_for with no time, with more than there is, and of an earlier acquire") {
    Alone alone;
    Contender holder{alone.session()}, other{alone.session()};
    holder.lock->acquire_for(coord::Duration{INT64_MAX}, holder.answer());
    alone.polls();
    CHECK(holder.is_granted());
    other.lock->acquire_for(coord::Duration{}, other.answer());
    alone.polls();
    CHECK(other.answers == std::vector<Errc>{Errc::operation_timeout});
    other.lock->acquire_for(coord::Duration{} - seconds(1), other.answer());
    alone.polls();
    CHECK(other.answers.size() == 2);
    // The time of an acquire that was taken back does not end the one after it.
    other.lock->acquire_for(milliseconds(50), other.answer());
    alone.polls(5);
    other.lock->cancel();
    other.acquire();
    alone.polls(200);
    CHECK(other.answers.size() == 3);
    CHECK(other.answers.back() == Errc::cancelled);
    holder.lock->release();
    alone.polls();
    CHECK(other.is_granted());
}

TEST_CASE("lock: acquire_for again and again heaps up no watchers") {
    Alone alone;
    Contender holder{alone.session()}, waiter{alone.session()};
    holder.acquire();
    alone.polls();
    for (int i = 0; i < 50; i++) {
        waiter.lock->acquire_for(milliseconds(10), waiter.answer());
        alone.polls(20);
    }
    CHECK(waiter.answers == std::vector<Errc>(50, Errc::operation_timeout));
    CHECK(alone.replica.status().watches <= 2);
    waiter.acquire();
    alone.polls();
    CHECK(alone.replica.status().watches <= 3);
    holder.lock->release();
    alone.polls();
    CHECK(waiter.is_granted());
    CHECK(alone.replica.status().watches == 1);
}

TEST_CASE("lock: cancel answers a waiter, in poll, and removes its node, at whatever moment") {
    for (int moment = 0; moment < 12; moment++) {
        INFO("after polls: " << moment);
        Alone alone;
        Contender holder{alone.session()}, waiter{alone.session()}, last{alone.session()};
        holder.acquire();
        alone.polls();
        waiter.acquire();
        alone.polls(moment);
        last.acquire();
        waiter.lock->cancel();
        CHECK(waiter.answers.empty());
        alone.polls();
        CHECK(waiter.answers == std::vector<Errc>{Errc::cancelled});
        CHECK(alone.queue().size() == 2);
        holder.lock->release();
        alone.polls();
        CHECK(last.is_granted());
        CHECK(waiter.answers.size() == 1);
    }
}

TEST_CASE("lock: cancel of an idle lock, and of one that is held, does nothing") {
    Alone alone;
    Contender holder{alone.session()};
    holder.lock->cancel();
    alone.polls();
    CHECK(holder.is_silent());
    holder.acquire();
    alone.polls();
    holder.lock->cancel();
    alone.polls();
    CHECK(holder.lock->is_held(alone.now));
    CHECK(holder.answers.size() == 1);
    CHECK(alone.queue().size() == 1);
}

TEST_CASE("lock: release while waiting cancels, and answers when the node is gone") {
    for (int moment = 0; moment < 12; moment++) {
        INFO("after polls: " << moment);
        Alone alone;
        Contender holder{alone.session()}, waiter{alone.session()};
        holder.acquire();
        alone.polls();
        waiter.acquire();
        alone.polls(moment);
        bool released = false;
        waiter.lock->release([&](coord::Result<void> result) {
            CHECK(result);
            CHECK(alone.queue().size() == 1);
            released = true;
        });
        alone.polls();
        CHECK(released);
        CHECK(waiter.answers == std::vector<Errc>{Errc::cancelled});
        waiter.acquire();
        holder.lock->release();
        alone.polls();
        CHECK(waiter.is_granted());
        CHECK(alone.queue().size() == 1);
    }
}

TEST_CASE("lock: release of an acquire that is bound to fail is answered, too") {
    Alone alone;
    Sync zk = alone.open();
    REQUIRE(zk.create("/e", "", CreateMode::ephemeral));
    Contender contender{zk.session(), "/e"};
    contender.acquire();
    int released = 0;
    contender.lock->release([&](coord::Result<void> result) { released += result ? 1 : 100; });
    alone.polls();
    CHECK(released == 1);
    CHECK(contender.answers == std::vector<Errc>{Errc::cancelled});
}

TEST_CASE("lock: acquire right after cancel: the old node goes, the new one waits") {
    Alone alone;
    Contender holder{alone.session()}, waiter{alone.session()};
    holder.acquire();
    alone.polls();
    for (int i = 0; i < 20; i++) {
        waiter.acquire();
        alone.polls(i % 5);
        waiter.lock->cancel();
    }
    waiter.acquire();
    alone.polls();
    CHECK(waiter.answers == std::vector<Errc>(20, Errc::cancelled));
    CHECK(alone.queue().size() == 2);
    holder.lock->release();
    alone.polls();
    CHECK(waiter.is_granted());
}

// -------------------------------------------------------------------------------------------------
// Loss

TEST_CASE("lock: somebody removes the holder's node: lock_lost, once, and the next one has it") {
    Alone alone;
    Sync zk = alone.open();
    Contender holder{alone.session()}, waiter{alone.session()};
    holder.acquire();
    alone.polls();
    waiter.acquire();
    alone.polls();
    REQUIRE(zk.remove(holder.grant.node));
    alone.polls();
    CHECK(holder.losses == std::vector<Errc>{Errc::lock_lost});
    CHECK(holder.answers.size() == 1);
    CHECK_FALSE(holder.lock->is_held(alone.now));
    CHECK(holder.lock->fencing_token() == 0);
    CHECK(waiter.is_granted());
    CHECK(waiter.grant.fencing_token > holder.grant.fencing_token);
    holder.acquire();
    waiter.lock->release();
    alone.polls();
    CHECK(holder.is_granted());
    CHECK(holder.losses.size() == 1);
}

TEST_CASE("lock: somebody removes a waiter's node: lock_lost to it, and the queue goes on") {
    Alone alone;
    Sync zk = alone.open();
    Contender holder{alone.session()}, waiter{alone.session()}, last{alone.session()};
    holder.acquire();
    alone.polls();
    waiter.acquire();
    alone.polls();
    last.acquire();
    alone.polls();
    const Bytes node = alone.queue()[1];
    for (const Bytes& name : alone.queue()) {
        if (*coord::sequence_of(name) == 1) REQUIRE(zk.remove("/lock/" + name));
    }
    alone.polls();
    CHECK(waiter.answers == std::vector<Errc>{Errc::lock_lost});
    CHECK(waiter.losses.empty());
    CHECK(last.is_silent());
    holder.lock->release();
    alone.polls();
    CHECK(last.is_granted());
}

TEST_CASE("lock: the nodes are removed at whatever moment: each contender hears once") {
    for (int moment = 0; moment < 12; moment++) {
        INFO("after polls: " << moment);
        Alone alone;
        Sync zk = alone.open();
        REQUIRE(zk.create("/lock", ""));
        Contender one{alone.session()}, two{alone.session()};
        one.acquire(), two.acquire();
        alone.polls(moment);
        const std::vector<Bytes> names = alone.queue();
        for (const Bytes& name : names) zk.session().remove("/lock/" + name, {});
        alone.polls();
        if (names.empty()) {
            CHECK(one.is_granted());
            CHECK(two.is_silent());
            continue;
        }
        CHECK(names.size() == 2);
        CHECK(alone.queue().empty());
        for (const Contender* each : {&one, &two}) {
            REQUIRE(each->answers.size() == 1);
            if (each->is_granted()) CHECK(each->losses == std::vector<Errc>{Errc::lock_lost});
            if (!each->is_granted()) CHECK(each->answers[0] == Errc::lock_lost);
            if (!each->is_granted()) CHECK(each->losses.empty());
        }
    }
}

TEST_CASE("lock: release of a lock whose node has just gone tells") {
    Alone alone;
    Sync zk = alone.open();
    Contender holder{alone.session()};
    holder.acquire();
    alone.polls();
    zk.session().remove(holder.grant.node, {});
    std::vector<Errc> released;
    holder.lock->release([&](coord::Result<void> result) { released.push_back(result.error()); });
    alone.polls();
    CHECK(released == std::vector<Errc>{Errc::lock_lost});
    CHECK(holder.losses.empty());
}

TEST_CASE("lock: the session ends: holder and waiter hear session_expired, once") {
    Alone alone;
    Sync zk = alone.open();
    Contender holder{zk.session()}, waiter{zk.session()}, other{alone.session()};
    holder.acquire();
    alone.polls();
    waiter.acquire();
    alone.polls();
    other.acquire();
    alone.polls();
    REQUIRE(zk.close());
    alone.polls();
    CHECK(holder.losses == std::vector<Errc>{Errc::session_expired});
    CHECK(holder.answers.size() == 1);
    CHECK_FALSE(holder.lock->is_held(alone.now));
    CHECK(waiter.answers == std::vector<Errc>{Errc::session_expired});
    CHECK(waiter.losses.empty());
    CHECK(other.is_granted());
    holder.acquire();
    waiter.lock->try_acquire(waiter.answer());
    alone.polls();
    CHECK(holder.answers.back() == Errc::session_expired);
    CHECK(waiter.answers.back() == Errc::session_expired);
    CHECK(holder.losses.size() == 1);
}

TEST_CASE("lock: the session ends at whatever moment of an acquire: one answer") {
    for (int moment = 0; moment < 8; moment++) {
        INFO("after polls: " << moment);
        Alone alone;
        Sync zk = alone.open();
        Contender contender{zk.session()};
        contender.acquire();
        alone.polls(moment);
        zk.session().close();
        alone.polls();
        REQUIRE(contender.answers.size() == 1);
        if (contender.is_granted()) {
            CHECK(contender.losses == std::vector<Errc>{Errc::session_expired});
        } else {
            CHECK(contender.answers[0] == Errc::session_expired);
            CHECK(contender.losses.empty());
        }
        CHECK(alone.queue().empty());
    }
}

TEST_CASE("lock: the replica fails: holder and waiter hear replica_failed") {
    Alone alone;
    Contender holder{alone.session()}, waiter{alone.session()};
    Sync zk = alone.open();
    holder.acquire();
    alone.polls();
    waiter.acquire();
    alone.polls();
    alone.disk.fail();
    zk.session().create("/x", "", {});
    alone.polls();
    REQUIRE(alone.replica.status().role == coord::Role::failed);
    CHECK_FALSE(holder.lock->is_held(alone.now));
    CHECK(holder.losses == std::vector<Errc>{Errc::replica_failed});
    CHECK(waiter.answers == std::vector<Errc>{Errc::replica_failed});
    waiter.acquire();
    alone.polls();
    CHECK(waiter.answers.back() == Errc::replica_failed);
    std::vector<Errc> released;
    holder.lock->release([&](coord::Result<void> result) { released.push_back(result.error()); });
    alone.polls();
    CHECK(released.size() == 1);
}

// -------------------------------------------------------------------------------------------------
// Destruction, and callbacks that do things

TEST_CASE("lock: destroyed at whatever moment, it calls nobody and leaves no node") {
    for (int moment = 0; moment < 14; moment++) {
        INFO("after polls: " << moment);
        Alone alone;
        Contender other{alone.session()};
        {
            Contender waiter{alone.session()};
            SUBCASE("waiting") {
                other.acquire();
                alone.polls();
            }
            SUBCASE("held") {}
            waiter.acquire();
            alone.polls(moment);
            waiter.lock.reset();
            const std::size_t answers = waiter.answers.size();
            other.lock->release();
            alone.polls();
            CHECK(waiter.answers.size() == answers);
            CHECK(waiter.losses.empty());
        }
        CHECK(alone.queue().empty());
        other.acquire();
        alone.polls();
        CHECK(other.is_granted());
    }
}

TEST_CASE("lock: destroyed after cancel or release, before the answers") {
    Alone alone;
    Contender holder{alone.session()}, waiter{alone.session()};
    holder.acquire();
    alone.polls();
    waiter.acquire();
    alone.polls();
    waiter.lock->cancel();
    waiter.lock.reset();
    bool released = false;
    holder.lock->release([&](coord::Result<void> result) { released = bool(result); });
    holder.lock.reset();
    alone.polls();
    CHECK(waiter.answers.empty());  // its callbacks are dropped
    CHECK(released);                // a release under way is answered
    CHECK(alone.queue().empty());
    CHECK(alone.replica.status().watches == 0);
}

TEST_CASE("lock: destroyed by its own callbacks") {
    Alone alone;
    Sync zk = alone.open();
    auto lock = std::make_unique<Lock>(zk.session(), "/lock");
    int calls = 0;
    SUBCASE("by the grant") {
        lock->acquire([&](const coord::Result<Grant>&) {
            calls += 1;
            lock.reset();
        });
        alone.polls();
    }
    SUBCASE("by the loss") {
        lock->on_lost([&](Errc) {
            calls += 1;
            lock.reset();
        });
        lock->acquire([](const coord::Result<Grant>&) {});
        alone.polls();
        REQUIRE(zk.remove("/lock/" + alone.queue()[0]));
        alone.polls();
    }
    SUBCASE("by the end of the session") {
        lock->on_lost([&](Errc) {
            calls += 1;
            lock.reset();
        });
        lock->acquire([](const coord::Result<Grant>&) {});
        alone.polls();
        REQUIRE(zk.close());
        alone.polls();
    }
    SUBCASE("by the cancel") {
        lock->acquire([&](const coord::Result<Grant>&) {
            calls += 1;
            lock.reset();
        });
        lock->cancel();
        alone.polls();
    }
    SUBCASE("by the time-out") {
        lock->acquire_for({}, [&](const coord::Result<Grant>&) {
            calls += 1;
            lock.reset();
        });
        alone.polls();
    }
    SUBCASE("by the release") {
        lock->acquire([](const coord::Result<Grant>&) {});
        alone.polls();
        lock->release([&](coord::Result<void>) {
            calls += 1;
            lock.reset();
        });
        alone.polls();
    }
    CHECK(calls == 1);
    CHECK(lock == nullptr);
    CHECK(alone.queue().empty());
}

TEST_CASE("lock: callbacks may release, acquire again, close the session") {
    Alone alone;
    Sync zk = alone.open();
    Lock lock{zk.session(), "/lock"};
    SUBCASE("a chain of acquire and release") {
        std::vector<std::uint64_t> tokens;
        std::function<void()> next = [&] {
            lock.acquire([&](const coord::Result<Grant>& grant) {
                REQUIRE(grant);
                tokens.push_back(grant->fencing_token);
                lock.release();
                if (tokens.size() < 20) next();
            });
        };
        next();
        alone.polls(300);
        REQUIRE(tokens.size() == 20);
        for (std::size_t i = 1; i < tokens.size(); i++) CHECK(tokens[i - 1] < tokens[i]);
    }
    SUBCASE("the grant closes the session") {
        std::vector<Errc> losses;
        lock.on_lost([&](Errc error) { losses.push_back(error); });
        lock.acquire([&](const coord::Result<Grant>& grant) {
            REQUIRE(grant);
            zk.session().close();
        });
        alone.polls();
        CHECK(losses == std::vector<Errc>{Errc::session_expired});
    }
    SUBCASE("the loss acquires again") {
        int grants = 0;
        const auto granted = [&](const coord::Result<Grant>& grant) { grants += grant ? 1 : 0; };
        lock.on_lost([&](Errc) { lock.acquire(granted); });
        lock.acquire(granted);
        for (int i = 1; i <= 5; i++) {
            alone.polls();
            CHECK(grants == i);
            REQUIRE(zk.remove("/lock/" + alone.queue()[0]));
        }
        alone.polls();
        CHECK(grants == 6);
    }
    SUBCASE("the loss replaces its listener") {
        int second = 0;
        lock.on_lost([&](Errc) { lock.on_lost([&](Errc) { second += 1; }); });
        for (int i = 0; i < 2; i++) {
            lock.acquire([](const coord::Result<Grant>&) {});
            alone.polls();
            REQUIRE(zk.remove("/lock/" + alone.queue()[0]));
            alone.polls();
        }
        CHECK(second == 1);
    }
    SUBCASE("the refusal acquires again") {
        int answers = 0;
        const auto count = [&](const coord::Result<Grant>& grant) { answers += grant ? 1 : 0; };
        Contender holder{alone.session()};
        holder.acquire();
        alone.polls();
        lock.try_acquire([&](const coord::Result<Grant>& grant) {
            CHECK(grant.error() == Errc::lock_busy);
            lock.acquire(count);
        });
        alone.polls();
        holder.lock->release();
        alone.polls();
        CHECK(answers == 1);
    }
    SUBCASE("there are no callbacks at all") {
        lock.acquire({});
        alone.polls();
        CHECK(lock.is_held(alone.now));
        lock.acquire({});
        lock.release();
        lock.on_lost({});
        lock.acquire_for(seconds(1), {});
        alone.polls();
        REQUIRE(zk.remove("/lock/" + alone.queue()[0]));
        lock.try_acquire({});
        lock.cancel();
        alone.polls();
        CHECK_FALSE(lock.is_held(alone.now));
    }
}

TEST_CASE("lock: the blocking face") {
    Alone alone;
    Sync zk = alone.open();
    Lock lock{zk.session(), "/lock"};
    const auto grant = zk.wait<Grant>([&](auto done) { lock.acquire(done); });
    REQUIRE(grant);
    CHECK(lock.is_held(alone.now));
    Lock other{zk.session(), "/lock"};
    CHECK(zk.wait<Grant>([&](auto done) { other.try_acquire(done); }).error() == Errc::lock_busy);
    CHECK(zk.wait<Grant>([&](auto done) { other.acquire_for(milliseconds(5), done); }).error() ==
          Errc::operation_timeout);
    CHECK(zk.wait<void>([&](auto done) { lock.release(done); }));
    CHECK(zk.wait<Grant>([&](auto done) { other.try_acquire(done); }));
}

TEST_CASE("lock: bounds on watches and requests leave no node behind") {
    coord::ReplicaOptions options;
    SUBCASE("watches") {
        options.limits.watches_per_session_max = 2;
        Alone alone{options};
        const Session session = alone.session();
        Contender holder{session}, waiter{session}, last{session};
        holder.acquire();
        alone.polls();
        waiter.acquire();  // its own, and no room for the one before
        alone.polls();
        CHECK(waiter.answers == std::vector<Errc>{Errc::too_many});
        last.acquire();
        alone.polls();
        CHECK(last.answers == std::vector<Errc>{Errc::too_many});
        CHECK(alone.queue().size() == 1);
        CHECK(holder.lock->is_held(alone.now));
    }
    SUBCASE("requests") {
        options.limits.requests_per_session_max = 4;
        Alone alone{options};
        const Session session = alone.session();
        Contender holder{session};
        holder.acquire();
        alone.polls();
        REQUIRE(holder.is_granted());
        for (int i = 0; i < 4; i++) session.set("/lock", "", {});
        for (int i = 0; i < 3; i++) session.remove("/none", {});  // no room is left at all
        bool released = false;
        holder.lock->release([&](coord::Result<void> result) { released = bool(result); });
        alone.polls(2000);
        CHECK(released);
        CHECK(alone.queue().empty());
    }
}

// -------------------------------------------------------------------------------------------------
// Three voters

TEST_CASE("lock, three voters: contenders at every replica get it one after the other") {
    Ensemble ensemble;
    Contenders all;
    for (std::uint32_t id = 1; id <= 3; id++) {
        for (int i = 0; i < 3; i++) {
            all.push_back(std::make_unique<Contender>(ensemble.session(id)));
        }
    }
    for (auto& each : all) each->acquire();
    std::uint64_t last = 0;
    for (std::size_t round = 0; round < all.size(); round++) {
        ensemble.sim.run_for(seconds(1));
        std::size_t held = 0;
        for (auto& each : all) {
            if (each->lock->fencing_token() == 0) continue;
            held += 1;
            CHECK(each->lock->fencing_token() > last);
            last = each->lock->fencing_token();
            each->lock->release();
        }
        CHECK(held == 1);
    }
    for (auto& each : all) CHECK(each->answers == std::vector<Errc>{Errc::ok});
    ensemble.sim.run_for(seconds(1));
    CHECK(ensemble.queue(1).empty());
}

TEST_CASE("lock, three voters: the holder's replica dies; the next has it after the timeout") {
    Ensemble ensemble;
    const std::uint32_t at = ensemble.follower(0);
    auto holder = std::make_unique<Contender>(ensemble.session(at, seconds(2)));
    Contender waiter{ensemble.session(ensemble.follower(1), seconds(2))};
    holder->acquire();
    ensemble.sim.run_for(seconds(1));
    REQUIRE(holder->is_granted());
    waiter.acquire();
    ensemble.sim.run_for(seconds(1));
    const Time until = ensemble.sim.when(at, holder->lock->certain_until());
    const std::uint64_t token = holder->grant.fencing_token;
    holder.reset();  // the program is gone: what it would have sent is never sent
    ensemble.sim.crash(at);
    REQUIRE(ensemble.sim.run_until([&] { return waiter.is_granted(); }, seconds(10)));
    CHECK(until < ensemble.sim.now());
    CHECK(waiter.grant.fencing_token > token);
}

TEST_CASE("lock, three voters: the holder is cut off; it knows in time, and hears it at last") {
    for (std::uint64_t seed = 1; seed <= 10; seed++) {
        INFO("seed " << seed);
        coord::SimulationOptions options = Ensemble::options(seed);
        options.clocks.rate_permille_min = 976;  // within the drift that the replicas allow for
        options.clocks.rate_permille_max = 1024;
        Ensemble ensemble{options};
        const std::uint32_t at = seed % 2 == 0 ? ensemble.leader() : ensemble.follower(0);
        const std::uint32_t other = seed % 2 == 0 ? ensemble.follower(0) : ensemble.follower(1);
        Contender holder{ensemble.session(at, seconds(20))};
        Contender waiter{ensemble.session(other, seconds(60))};
        holder.acquire();
        ensemble.sim.run_for(seconds(1));
        REQUIRE(holder.is_granted());
        waiter.acquire();
        ensemble.sim.run_for(seconds(1));
        ensemble.sim.isolate(at);
        REQUIRE(ensemble.sim.run_until([&] { return waiter.is_granted(); }, seconds(60)));
        const Time until = holder.lock->certain_until();
        REQUIRE(until != Time{});
        CHECK(ensemble.sim.when(at, until) < ensemble.sim.now());  // it has stopped before
        CHECK_FALSE(holder.lock->is_held(ensemble.sim.clock(at)));
        CHECK(holder.losses.empty());  // but it cannot know more
        CHECK(waiter.grant.fencing_token > holder.grant.fencing_token);
        ensemble.sim.heal();
        ensemble.sim.run_for(seconds(5));
        CHECK(holder.losses == std::vector<Errc>{Errc::session_expired});
        CHECK(waiter.losses.empty());
        CHECK(waiter.lock->is_held(ensemble.sim.clock(other)));
    }
}

TEST_CASE("lock, three voters: C14 D10, a holder that was stopped finds that it holds nothing") {
    Ensemble ensemble;
    const std::uint32_t at = ensemble.follower(0);
    const std::uint32_t other = ensemble.follower(1);
    Contender holder{ensemble.session(at, seconds(2))};
    Contender waiter{ensemble.session(other, seconds(2))};
    std::uint64_t highest = 0;  // what the guarded thing has seen
    const auto write = [&](std::uint64_t token) {
        const bool is_taken = token >= highest;
        if (is_taken) highest = token;
        return is_taken;
    };
    holder.acquire();
    ensemble.sim.run_for(seconds(1));
    waiter.acquire();
    ensemble.sim.run_for(seconds(1));
    CHECK(write(holder.grant.fencing_token));
    ensemble.sim.pause(at);
    REQUIRE(ensemble.sim.run_until([&] { return waiter.is_granted(); }, seconds(20)));
    CHECK_FALSE(holder.lock->is_held(ensemble.sim.clock(at)));
    CHECK(write(waiter.grant.fencing_token));
    ensemble.sim.resume(at);
    CHECK_FALSE(holder.lock->is_held(ensemble.sim.clock(at)));  // before it hears anything
    CHECK_FALSE(write(holder.grant.fencing_token));
    CHECK(write(waiter.grant.fencing_token));
    ensemble.sim.run_for(seconds(5));
    CHECK(holder.losses == std::vector<Errc>{Errc::session_expired});
}

TEST_CASE("lock, three voters: C15, after a restart an old node is waited for, not taken over") {
    Ensemble ensemble;
    const std::uint32_t at = ensemble.follower(0);
    auto holder = std::make_unique<Contender>(ensemble.session(at, seconds(3)));
    holder->acquire();
    ensemble.sim.run_for(seconds(1));
    REQUIRE(holder->is_granted());
    const std::uint64_t token = holder->grant.fencing_token;
    const Bytes node = holder->grant.node;
    holder.reset();
    ensemble.sim.crash(at);
    ensemble.sim.restart(at);
    ensemble.sim.run_for(seconds(1));
    Contender again{ensemble.session(at, seconds(3))};
    again.acquire();
    ensemble.sim.run_for(milliseconds(500));
    CHECK(ensemble.sim.replica(at).tree().contains(node));
    CHECK(again.is_silent());
    REQUIRE(ensemble.sim.run_until([&] { return again.is_granted(); }, seconds(10)));
    CHECK_FALSE(ensemble.sim.replica(at).tree().contains(node));
    CHECK(again.grant.fencing_token > token);
}

TEST_CASE("lock, three voters: C17, a waiter whose session expires is not granted the lock") {
    for (const bool is_paused : {false, true}) {
        INFO("paused " << is_paused);
        Ensemble ensemble;
        const std::uint32_t at = ensemble.follower(0);
        Contender holder{ensemble.session(ensemble.leader(), seconds(60))};
        Contender waiter{ensemble.session(at, seconds(2))};
        Contender last{ensemble.session(ensemble.follower(1), seconds(60))};
        for (Contender* each : {&holder, &waiter, &last}) {
            each->acquire();
            ensemble.sim.run_for(seconds(1));
        }
        if (is_paused) ensemble.sim.pause(at);
        if (!is_paused) ensemble.sim.isolate(at);
        ensemble.sim.run_for(seconds(6));
        holder.lock->release();
        ensemble.sim.run_for(seconds(2));
        CHECK(last.is_granted());
        if (is_paused) ensemble.sim.resume(at);
        ensemble.sim.heal();
        ensemble.sim.run_for(seconds(5));
        CHECK(waiter.answers == std::vector<Errc>{Errc::session_expired});
        CHECK(waiter.losses.empty());
        CHECK(last.lock->is_held(ensemble.sim.clock(ensemble.follower(1))));
    }
}

TEST_CASE("lock, three voters: C17, first in the queue, but with a session that may be over") {
    // Stopped with the release of the one before it in its inbox; its session expires meanwhile.
    Ensemble ensemble;
    const std::uint32_t at = ensemble.follower(0);
    Contender holder{ensemble.session(ensemble.leader(), seconds(60))};
    Contender waiter{ensemble.session(at, seconds(2))};
    Contender last{ensemble.session(ensemble.follower(1), seconds(60))};
    for (Contender* each : {&holder, &waiter, &last}) {
        each->acquire();
        ensemble.sim.run_for(seconds(1));
    }
    ensemble.sim.pause(at);
    holder.lock->release();
    ensemble.sim.run_for(milliseconds(300));
    ensemble.sim.isolate(at);
    REQUIRE(ensemble.sim.run_until([&] { return last.is_granted(); }, seconds(10)));
    ensemble.sim.resume(at);
    ensemble.sim.run_for(milliseconds(300));
    CHECK(ensemble.queue(at).size() == 2);  // as far as it knows, it is first
    CHECK(waiter.is_silent());
    ensemble.sim.heal();
    ensemble.sim.run_for(seconds(5));
    CHECK(waiter.answers == std::vector<Errc>{Errc::session_expired});
    CHECK(last.lock->is_held(ensemble.sim.clock(ensemble.follower(1))));
}

TEST_CASE("lock, three voters: C18, a release that the leader's death delays is done once") {
    for (std::uint64_t seed = 1; seed <= 10; seed++) {
        INFO("seed " << seed);
        Ensemble ensemble{seed};
        const std::uint32_t leader = ensemble.leader();
        const std::uint32_t at = ensemble.follower(0);
        Contender holder{ensemble.session(at, seconds(5))};
        holder.acquire();
        ensemble.sim.run_for(seconds(1));
        REQUIRE(holder.is_granted());
        const std::uint64_t token = holder.grant.fencing_token;
        ensemble.sim.crash_at_send(leader, static_cast<std::uint32_t>(seed % 4));
        bool released = false;
        holder.lock->release([&](coord::Result<void> result) {
            CHECK(result);
            released = true;
        });
        holder.acquire();
        REQUIRE(ensemble.sim.run_until([&] { return holder.answers.size() == 2; }, seconds(20)));
        CHECK(released);
        CHECK(holder.is_granted());
        CHECK(holder.grant.fencing_token > token);
        CHECK(ensemble.queue(at).size() == 1);
    }
}

TEST_CASE("lock, three voters: an acquire that the leader's death delays makes one node") {
    for (std::uint64_t seed = 1; seed <= 20; seed++) {
        INFO("seed " << seed);
        Ensemble ensemble{seed};
        const std::uint32_t leader = ensemble.leader();
        const std::uint32_t at = ensemble.follower(0);
        Contender holder{ensemble.session(at, seconds(5))};
        ensemble.sim.crash_at_send(leader, static_cast<std::uint32_t>(seed % 7));
        holder.acquire();
        REQUIRE(ensemble.sim.run_until([&] { return !holder.answers.empty(); }, seconds(20)));
        CHECK(holder.is_granted());
        CHECK(ensemble.queue(at).size() == 1);
        ensemble.sim.run_for(seconds(10));
        CHECK(holder.losses.empty());
        CHECK(holder.answers.size() == 1);
    }
}

TEST_CASE("lock, three voters: C25, a suspension shorter than the timeout takes nothing away") {
    Ensemble ensemble;
    const std::uint32_t at = ensemble.follower(0);
    const Session session = ensemble.session(at, seconds(10));
    Contender holder{session}, waiter{session};
    holder.acquire();
    ensemble.sim.run_for(seconds(1));
    waiter.acquire();
    ensemble.sim.run_for(seconds(1));
    for (int i = 0; i < 5; i++) {
        ensemble.sim.isolate(at);
        REQUIRE(ensemble.sim.run_until([&] {
            return session.state() == coord::SessionState::suspended;
        }, seconds(5)));
        CHECK(holder.lock->is_held(ensemble.sim.clock(at)));
        ensemble.sim.run_for(seconds(1));
        ensemble.sim.heal();
        REQUIRE(ensemble.sim.run_until([&] {
            return session.state() == coord::SessionState::connected;
        }, seconds(5)));
        ensemble.sim.run_for(seconds(1));
    }
    CHECK(holder.losses.empty());
    CHECK(holder.lock->is_held(ensemble.sim.clock(at)));
    CHECK(waiter.is_silent());
    holder.lock->release();
    ensemble.sim.run_for(seconds(1));
    CHECK(waiter.is_granted());
}

TEST_CASE("lock, three voters: release and acquire while suspended take effect after it") {
    Ensemble ensemble;
    const std::uint32_t at = ensemble.follower(0);
    Contender holder{ensemble.session(at, seconds(30))};
    Contender waiter{ensemble.session(ensemble.follower(1), seconds(30))};
    holder.acquire();
    ensemble.sim.run_for(seconds(1));
    waiter.acquire();
    ensemble.sim.run_for(seconds(1));
    ensemble.sim.isolate(at);
    ensemble.sim.run_for(seconds(2));
    holder.lock->release();
    CHECK_FALSE(holder.lock->is_held(ensemble.sim.clock(at)));
    holder.acquire();
    ensemble.sim.run_for(seconds(2));
    CHECK_FALSE(waiter.is_granted());
    ensemble.sim.heal();
    ensemble.sim.run_for(seconds(3));
    CHECK(waiter.is_granted());
    CHECK(holder.answers.size() == 1);
    waiter.lock->release();
    ensemble.sim.run_for(seconds(1));
    CHECK(holder.answers.size() == 2);
    CHECK(holder.is_granted());
}

TEST_CASE("lock, three voters: times run out and cancels work while suspended") {
    Ensemble ensemble;
    const std::uint32_t at = ensemble.follower(0);
    const Session session = ensemble.session(at, seconds(30));
    Contender timed{session}, cancelled{session}, tried{session};
    ensemble.sim.isolate(at);
    ensemble.sim.run_for(seconds(2));
    timed.lock->acquire_for(seconds(1), timed.answer());
    cancelled.acquire();
    tried.lock->try_acquire(tried.answer());
    ensemble.sim.run_for(milliseconds(500));
    cancelled.lock->cancel();
    ensemble.sim.run_for(seconds(2));
    CHECK(timed.answers == std::vector<Errc>{Errc::operation_timeout});
    CHECK(cancelled.answers == std::vector<Errc>{Errc::cancelled});
    CHECK(tried.is_silent());
    ensemble.sim.heal();
    ensemble.sim.run_for(seconds(3));
    CHECK(timed.answers.size() == 1);
    CHECK(cancelled.answers.size() == 1);
    REQUIRE(tried.answers.size() == 1);
    tried.lock->release();
    ensemble.sim.run_for(seconds(1));
    CHECK(ensemble.queue(at).empty());
}

TEST_CASE("lock, three voters: P11 under random cuts, pauses, crashes, a bad network") {
    std::uint64_t all_grants = 0, all_cuts = 0;
    for (std::uint64_t seed = 1; seed <= 12; seed++) {
        INFO("seed " << seed);
        coord::SimulationOptions options = Ensemble::options(support::seed_or(0) + seed);
        options.clocks.rate_permille_min = 980;
        options.clocks.rate_permille_max = 1020;
        options.network.loss_permille = 30;
        options.network.repeat_permille = 30;
        options.network.delay_permille = 30;
        Ensemble ensemble{options};
        coord::Rng rng(options.seed);
        struct Player {
            std::uint32_t at = 1;
            std::optional<Session> session;
            std::unique_ptr<Lock> lock;
            bool is_opening = false;
            bool is_busy = false;
        };
        std::vector<Player> players(6);
        std::uint64_t highest = 0, grants = 0, cuts = 0;
        const auto act = [&](Player& player) {
            if (!ensemble.sim.is_running(player.at) || player.is_opening || player.is_busy) return;
            const bool is_over =
                !player.session || player.session->state() == coord::SessionState::expired;
            if (is_over) {
                player.is_opening = true, player.lock.reset();
                Session::open(ensemble.sim.replica(player.at), {seconds(2)},
                              [&player](coord::Result<Session> opened) {
                                  player.is_opening = false;
                                  if (opened) player.session = *opened;
                              });
                return;
            }
            if (player.lock && player.lock->fencing_token() != 0) return player.lock->release();
            if (!player.lock) player.lock = std::make_unique<Lock>(*player.session, "/lock");
            player.is_busy = true;
            player.lock->acquire_for(seconds(3), [&](const coord::Result<Grant>& grant) {
                player.is_busy = false;
                if (!grant) return;
                grants += 1;
                CHECK(grant->fencing_token > highest);
                highest = grant->fencing_token;
                CHECK(player.lock->is_held(player.session->now()));
                for (const Player& other : players) {
                    if (&other == &player || !other.lock) continue;
                    CHECK_FALSE(other.lock->is_held(ensemble.sim.clock(other.at)));
                }
            });
        };
        for (std::size_t i = 0; i < players.size(); i++) {
            players[i].at = static_cast<std::uint32_t>(i % 3) + 1;
        }
        const auto crash = [&](std::uint32_t which) {
            for (Player& player : players) {  // the program dies, with all that it has
                if (player.at != which) continue;
                player.lock.reset(), player.session.reset();
                player.is_opening = false, player.is_busy = false;
            }
            ensemble.sim.crash(which);
        };
        for (int round = 0; round < 400; round++) {
            const auto which = static_cast<std::uint32_t>(rng.below(3)) + 1;
            const std::uint64_t what = rng.below(60);
            const bool is_up = ensemble.sim.is_running(which);
            if (what < 2) ensemble.sim.isolate(which), cuts += 1;
            if (what == 2 && is_up && !ensemble.sim.is_paused(which)) ensemble.sim.pause(which);
            if (what == 3 && is_up) crash(which);
            if (what == 4) ensemble.sim.stall(which, milliseconds(700));
            if (what >= 5 && what < 9) ensemble.sim.heal();
            if (what >= 9 && what < 18 && ensemble.sim.is_paused(which)) ensemble.sim.resume(which);
            if (what >= 9 && what < 18 && !is_up) ensemble.sim.restart(which);
            act(players[rng.below(players.size())]);
            ensemble.sim.run_for(milliseconds(static_cast<std::int64_t>(rng.below(200))));
        }
        ensemble.sim.heal();
        for (std::uint32_t id = 1; id <= 3; id++) {
            if (!ensemble.sim.is_running(id)) ensemble.sim.restart(id);
            if (ensemble.sim.is_paused(id)) ensemble.sim.resume(id);
        }
        ensemble.sim.set_network({});
        ensemble.sim.run_for(seconds(10));
        all_grants += grants;
        all_cuts += cuts;
        for (Player& player : players) player.lock.reset();
        ensemble.sim.run_for(seconds(10));
        for (std::uint32_t id = 1; id <= 3; id++) CHECK(ensemble.queue(id).empty());
    }
    CHECK(all_grants > 12 * 10);  // it has tried something
    CHECK(all_cuts > 12 * 5);
}

}  // TEST_SUITE
