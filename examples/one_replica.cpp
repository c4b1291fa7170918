// One replica, standalone, with the blocking face: create a node, read it, watch it change.
// To keep it, say coord::FileStorage storage{"directory"}: another run is then told node_exists.
//
//     g++ -std=c++17 -I. examples/one_replica.cpp -o one_replica && ./one_replica
#define COORD_IMPLEMENTATION
#include "coord.hpp"

#include <cstdio>

int main() {
    coord::MemoryStorage storage;
    coord::Replica replica{coord::ReplicaOptions{}, storage};  // an ensemble of one: no transport
    coord::Time clock;                                         // or your monotonic clock
    auto pump = [&] { return replica.poll(clock = clock + coord::milliseconds(1)), true; };

    coord::Result<coord::Session> session = coord::Sync::open(replica, {}, pump);
    if (!session) return std::printf("no session: %s\n", coord::text(session.error())), 1;
    coord::Sync zk{*session, pump};

    bool fired = false;
    auto created = zk.create("/javaer", "www.javaer.com.cn");
    auto read = zk.get("/javaer", [&](const coord::WatchEvent& event) {
        std::printf("watch: event %d on %s\n", static_cast<int>(event.type), event.path.c_str());
        fired = event.type == coord::EventType::data_changed;
    });
    if (!created || !read) return 1;
    std::printf("%s = %s, version %d\n", created->path.c_str(), read->bytes.c_str(),
                static_cast<int>(read->stat.version));

    auto changed = zk.set("/javaer", "another value", read->stat.version);
    return changed && changed->version == 1 && fired ? 0 : 1;
}
