// A client, and servers that it is a client of, in one thread and without a socket: zkserver over
// replicas in memory, and a network between that the test cuts where it likes.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "zkserver/pages.hpp"
#include "zookeeper_client/client.hpp"

namespace rig {

using coord::Bytes;
using coord::BytesView;
using coord::Duration;
using coord::Errc;
using coord::milliseconds;
using coord::seconds;
using coord::Sync;
using coord::Time;

// One server: its replica is another's.
class Server {
public:
    explicit Server(coord::Replica& replica) {
        const std::string text = "tickTime=2000\ndataDir=/data\nclientPort=2181\n"
                                 "maxClientCnxns=0\nextendedTypesEnabled=true\n"
                                 "enforceQuota=true\n";
        REQUIRE(zkserver::ConfigReader(config_).read(text) == "");
        service.emplace(replica, config_, 1);
    }
    void turn(Time now) {
        service->now = now;
        service->tick(now);
        for (const zkserver::Ticket& ticket : service->take_touched()) {
            zkserver::Connection* const connection = ticket.find();
            if (connection == nullptr) continue;
            service->untouch(*connection);
            connection->go_on();
        }
    }

private:
    zkserver::Config config_;

public:
    std::optional<zkserver::Service> service;
};

// Frames, one by one, in both directions, so that it can be cut before any of them.
class Wires final : public zookeeper_client::Network {
public:
    explicit Wires(std::vector<Server*> servers) : servers_(std::move(servers)) {}
    zookeeper_client::Client* client = nullptr;
    std::vector<bool> is_down = std::vector<bool>(8);  // refuse whoever comes
    bool is_silent = false;    // what is sent from now on is lost, either way
    std::uint64_t cut_at = 0;  // of the frames, from 1; 0: never
    std::uint64_t frames = 0;  // so far
    std::size_t largest = 0;   // of those that the client has sent, in bytes
    std::uint64_t connections = 0;

    void connect(zookeeper_client::LinkId link, const zookeeper_client::Address& to) override {
        connections += 1;
        const auto place = static_cast<std::size_t>(to.port - 1);
        if (is_down.at(place)) return over_.push_back(link);
        zkserver::Connection& opened = servers_[place]->service->open("127.0.0.1", 4711);
        links_[link] = {opened.ticket(), place, {}, {}, true};
    }
    void send(zookeeper_client::LinkId link, BytesView bytes) override {
        const auto found = links_.find(link);
        if (found != links_.end() && !is_silent) found->second.up.append(bytes);
    }
    void close(zookeeper_client::LinkId link) override {
        const auto found = links_.find(link);
        if (found == links_.end()) return;
        if (zkserver::Connection* end = found->second.ticket.find()) {
            servers_[found->second.server]->service->close(*end);
        }
        links_.erase(found);
    }
    // What the client is to be told as if by a server.
    void say(BytesView bytes) {
        for (auto& [id, link] : links_) link.down.append(bytes);
    }
    void cut_all(std::size_t server = SIZE_MAX) {
        std::vector<zookeeper_client::LinkId> all;
        for (auto& [id, link] : links_) {
            if (server == SIZE_MAX || link.server == server) all.push_back(id);
        }
        for (const auto id : all) cut(id);
    }
    // Moves what there is.
    void turn() {
        std::vector<zookeeper_client::LinkId> all;
        for (auto& [id, link] : links_) all.push_back(id);
        for (const auto id : std::exchange(over_, {})) client->closed(id);
        for (const auto id : all) move(id);
    }

private:
    struct Link {
        zkserver::Ticket ticket;
        std::size_t server;
        Bytes up, down;
        bool is_new;
    };
    void cut(zookeeper_client::LinkId id) {
        close(id);
        client->closed(id);
    }
    // RETURNS false where the link is cut before it.
    bool pass(zookeeper_client::LinkId id) {
        frames += 1;
        if (frames != cut_at) return true;
        cut(id);
        return false;
    }
    static Bytes take_frame(Bytes& bytes) {
        if (bytes.size() < 4) return {};
        const std::size_t size = 4 + coord::Reader(bytes).u32();
        Bytes frame = bytes.substr(0, (std::min)(size, bytes.size()));
        bytes.erase(0, frame.size());
        return frame;
    }
    void move(zookeeper_client::LinkId id) {
        if (std::exchange(links_.at(id).is_new, false)) client->connected(id);
        for (Bytes frame; !(frame = take_frame(links_.at(id).up)).empty();) {
            if (!pass(id)) return;
            largest = (std::max)(largest, frame.size());
            if (zkserver::Connection* end = links_.at(id).ticket.find()) end->receive(frame);
        }
        zkserver::Connection* const end = links_.at(id).ticket.find();
        if (end == nullptr) return cut(id);
        Link& link = links_.at(id);
        const Bytes output(end->output());
        end->sent(output.size());
        if (!is_silent) link.down.append(output);
        const bool is_over = end->is_over();
        for (Bytes frame; !(frame = take_frame(links_.at(id).down)).empty();) {
            if (!pass(id)) return;
            client->receive(id, frame);
        }
        if (is_over) cut(id);
    }

    std::vector<Server*> servers_;
    std::map<zookeeper_client::LinkId, Link> links_;
    std::vector<zookeeper_client::LinkId> over_;
};

inline zookeeper_client::Options options_of(std::size_t servers, const std::string& chroot = "") {
    zookeeper_client::Options options;
    for (std::size_t i = 0; i < servers; i++) {
        options.servers.push_back({"server", static_cast<int>(i + 1)});
    }
    options.chroot = chroot;
    return options;
}

// One server, over a replica alone.
class Alone {
public:
    explicit Alone(const std::string& chroot = "")
        : wires({&server}), client(options_of(1, chroot), wires) {
        wires.client = &client;
        for (int i = 0; i < 3; i++) turn();
    }
    ~Alone() {
        wires.cut_all();
        replica.reset();  // before the server: what its watchers hold looks there
    }
    void turn(Duration by = milliseconds(1)) {
        now = now + by;
        replica->poll(now, 1000 + now.ns / 1000000);
        server.turn(now);
        wires.turn();
        client.poll(now);
    }
    void run_for(Duration time) {
        for (const Time end = now + time; now < end;) turn(milliseconds(5));
    }
    coord::Pump pump() {
        limit_ = now + seconds(30);
        return [this] { return turn(), now < limit_; };
    }
    coord::Session open(Duration timeout = seconds(10)) {
        coord::SessionOptions options;
        options.timeout = timeout;
        const auto opened = Sync::open(client, options, pump());
        REQUIRE(opened);
        return *opened;
    }
    Sync sync(const coord::Session& session) { return {session, pump()}; }

    coord::MemoryStorage disk;
    std::optional<coord::Replica> replica{std::in_place, coord::ReplicaOptions{}, disk};
    Server server{*replica};
    Wires wires;
    zookeeper_client::Client client;
    Time now{1000000000};

private:
    Time limit_;
};

}  // namespace rig
