// The cases of 13_conformance.hpp over examples/zookeeper_client, and so the list of what a program
// finds that goes from a replica of its own to an ensemble of ZooKeeper's: differences, below. A
// case that is in it must fail, so that the list says neither too much nor too little. The server
// is zkserver; with COORD_ZOOKEEPER=HOST:PORT whatever is there, a ZooKeeper 3.8 by conformance.py.

#include <doctest/doctest.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "13_conformance.hpp"
#include "rig.hpp"
#include "zookeeper_client/sockets.hpp"

namespace {

using coord::Bytes;
using coord::milliseconds;
using coord::seconds;
using coord::Sync;

const char* given_place() { return std::getenv("COORD_ZOOKEEPER"); }

class Ours final : public conformance::World {
public:
    Sync open() override { return alone_.sync(alone_.open()); }
    void settle() override {
        for (int i = 0; i < 20; i++) alone_.turn();
    }

private:
    rig::Alone alone_;
};

// What was there is removed first, so that each case finds a tree as fresh as can be.
class Theirs final : public conformance::World {
public:
    Theirs() : client_(options(), sockets_) {
        const Sync zk = open();
        for (const char* const top : {"/zookeeper/quota", "/"}) empty(zk, top);
        REQUIRE(zk.set("/", ""));
        REQUIRE(zk.set_acl("/", coord::open_acl()));
        REQUIRE(zk.close());
    }
    Sync open() override {
        const auto opened = Sync::open(client_, {}, pump());
        REQUIRE(opened);
        return {*opened, pump()};
    }
    void settle() override {
        const coord::Time until = zkserver::read_clock() + milliseconds(60);
        while (zkserver::read_clock() < until) sockets_.turn(client_, milliseconds(10));
    }

private:
    static zookeeper_client::Options options() {
        zookeeper_client::Options options;
        REQUIRE(options.read(given_place()) == "");
        return options;
    }
    static void empty(const Sync& zk, const Bytes& path) {
        const Bytes start = path == "/" ? Bytes() : path;
        const auto found = zk.children(path);
        if (!found) return;
        for (const Bytes& name : found->names) {
            const Bytes child = start + "/" + name;
            if (child == "/zookeeper") continue;
            empty(zk, child);
            (void)zk.remove(child);
        }
    }
    coord::Pump pump() {
        return [this, until = zkserver::read_clock() + seconds(20)] {
            sockets_.turn(client_, milliseconds(50));
            return zkserver::read_clock() < until;
        };
    }
    zookeeper_client::Sockets sockets_;
    zookeeper_client::Client client_;
};

// What is not as a replica has it, and why. Where: with zkserver as the server, with a ZooKeeper
// 3.8, or with both.
struct Difference {
    enum Where : unsigned { zkserver = 1, zookeeper = 2, both = 3 };
    const char* title;
    Where where;
    const char* reason;
    bool is_case = false;
};

std::vector<Difference>& differences() {
    static std::vector<Difference> all = {
        {"2.2 the config says who votes and since when; nobody sets it", Difference::both,
         "a server alone shows the config of an ensemble of none"},
        {"2.5 reconfig is for who may write the config; its answer comes in turn",
         Difference::both, "reconfig is ZooKeeper's own tools' to ask for"},
        {"2.6 the root begins with zxids and times of 0, and a cversion of -1",
         Difference::zookeeper, "other cases have used the same tree"},
        {"2.8 the ephemerals of a session go in one step, of one zxid", Difference::both,
         "an event does not say its zxid"},
        {"2.8 differs: a node of one's earlier session is taken over, with its password",
         Difference::both, "take_over is coord's"},
        {"2.9 several reads are answered at one moment, each with its own error",
         Difference::both, "ZooKeeper reads several of get and children, not of exists"},
        {"2.9 differs: conditions beside the check of a version, also that none is there",
         Difference::both, "conditions are coord's"},
        {"2.9 differs: create_or_set, create_with_parents, remove_all: one write each",
         Difference::both, "these are coord's"},
        {"2.9 differs: what a node guards is written while that very node is there",
         Difference::both, "guards are coord's"},
        {"2.9 watchers hear of a multi part by part, of one zxid; of a failed one, not",
         Difference::both, "an event does not say its zxid"},
        {"2.10 an event comes before the answer that shows its change, and has its zxid",
         Difference::both, "an event does not say its zxid"},
        {"2.10 one of each kind on one path: each hears, none takes another's place",
         Difference::zookeeper, "3.8 has one kind for each watcher and path, the last one"},
        {"2.10 persistent: created, changed, deleted and children of its path, and stays",
         Difference::zookeeper, "3.8 has one kind for each watcher and path, the last one"},
        {"2.10 setWatches: what has not changed since tells nothing, and is watched",
         Difference::both, "one event is told to all of that path that hear such events"},
        {"2.10 setWatches: a node set since fires changed, and with its zxid", Difference::both,
         "an event does not say its zxid, and ZooKeeper tells one that stays of nothing missed"},
        {"2.10 setWatches: children changed since fire children; both, in their order",
         Difference::both,
         "an event does not say its zxid, and ZooKeeper tells one that stays of nothing missed"},
        {"2.10 setWatches: a node that is gone fires deleted, at data and child",
         Difference::both, "ZooKeeper tells one that stays of nothing that it has missed"},
        {"2.10 setWatches: a node made anew fires changed, and children", Difference::zookeeper,
         "ZooKeeper tells one that stays of nothing that it has missed"},
        {"2.10 setWatches differs: one that stays hears of what it has missed", Difference::both,
         "ZooKeeper tells one that stays of nothing that it has missed"},
        {"2.10 an event comes to who may read the node, when it changes", Difference::both,
         "which watch was used up in silence only the server knows"},
        {"2.14 differs: a value that is too large is an error, and the session lives on",
         Difference::both, "how long a path may be is the server's to say: as long as a frame"},
        {"1.4 differs: a credential that nobody takes does not end the session", Difference::both,
         "it ends the connection: the session goes on a moment later"},
        {"1.4 differs: set_acl is a part of a multi", Difference::both, "ZooKeeper has none"},
        {"1.5 differs: the parts of a multi see what those before them have counted",
         Difference::zookeeper, "ZooKeeper judges each part by what was before the multi"},
        {"1.5 differs: a text that is no quota is none, and stats are put right at once",
         Difference::zookeeper, "ZooKeeper believes such texts, or stumbles over them"},
    };
    return all;
}

}  // namespace

const std::vector<conformance::WorldKind>& conformance::worlds() {
    static const std::vector<WorldKind> kinds = {
        given_place() ? WorldKind{"a client of ZooKeeper",
                                [] { return std::unique_ptr<World>(new Theirs); }}
                    : WorldKind{"a client of zkserver",
                                [] { return std::unique_ptr<World>(new Ours); }},
    };
    return kinds;
}

bool conformance::differs(const char* title) {
    const unsigned here = given_place() ? Difference::zookeeper : Difference::zkserver;
    for (Difference& one : differences()) {
        if (std::strcmp(one.title, title) != 0) continue;
        one.is_case = true;
        return (one.where & here) != 0;
    }
    return false;
}

TEST_SUITE("13 conformance") {

TEST_CASE("each difference is of a case that there is, and has its reason") {
    for (const Difference& one : differences()) {
        INFO(one.title);
        CHECK(one.is_case);
        CHECK(one.reason[0] != 0);
    }
}

}  // TEST_SUITE
