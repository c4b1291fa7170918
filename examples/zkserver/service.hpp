// The connections of a server and the sessions that have none: what begins and ends them.
#pragma once

#include "connection.hpp"

#include <algorithm>

namespace zkserver {

inline Connection& Service::open(const std::string& host, int port) {
    if (free_.empty()) {
        free_.push_back(static_cast<std::uint32_t>(places_.size()));
        places_.emplace_back();
    }
    const std::uint32_t index = free_.back();
    free_.pop_back();
    Place& place = places_[index];
    place.generation += 1;
    const Ticket ticket{this, index, place.generation};
    place.connection = std::make_unique<Connection>(ticket, host, port, now);
    hosts_[host] += 1;
    return *place.connection;
}

inline std::vector<Ticket> Service::take_touched() {
    std::vector<Ticket> touched = std::exchange(touched_, {});
    if (std::exchange(has_behind, false)) {
        std::stable_partition(touched.begin(), touched.end(), [](const Ticket& ticket) {
            const Connection* const connection = ticket.find();
            return connection != nullptr && connection->is_behind();
        });
    }
    return touched;
}

inline void Service::close(Connection& connection) {
    const std::optional<coord::Session>& session = connection.session();
    if (session && !connection.is_closed_by_client()) {
        leave(*session, connection.timeout_ms(), connection.heard_at());
    }
    outstanding -= connection.in_flight();
    const auto host = hosts_.find(connection.host());
    if (host != hosts_.end() && --host->second == 0) hosts_.erase(host);
    const std::uint32_t index = connection.ticket().index;
    free_.push_back(index);
    places_[index].generation += 1;
    places_[index].connection.reset();
}

inline void Service::leave(const coord::Session& session, std::int32_t timeout_ms,
                           coord::Time heard_at) {
    const coord::SessionState state = session.state();
    const bool lives = state == coord::SessionState::connected ||
                       state == coord::SessionState::suspended;
    if (lives) left_.push_back({session, heard_at + coord::milliseconds(timeout_ms)});
}

inline void Service::tick(coord::Time time) {
    now = time;
    // A process that has stood still has not heard its clients: that is not their silence.
    const coord::Duration pause = ticked_at_ == coord::Time{} ? coord::Duration{}
                                                              : time - ticked_at_;
    const bool is_late = pause > coord::milliseconds(pause_ms_max);
    const coord::Duration forgiven = is_late ? pause : coord::Duration{};
    ticked_at_ = time;
    visit([&](Connection& connection) { connection.tick(time, forgiven); });
    for (Left& left : left_) left.until = left.until + forgiven;
    std::size_t kept = 0;
    for (std::size_t i = 0; i < left_.size(); i++) {
        const coord::SessionState state = left_[i].session.state();
        const bool lives = state == coord::SessionState::connected ||
                           state == coord::SessionState::suspended;
        if (lives && time < left_[i].until) {
            if (kept != i) left_[kept] = left_[i];
            kept += 1;
        } else if (lives) {
            left_[i].session.close();  // where it has moved this does nothing
            sessions_expired += 1;
        }
    }
    left_.erase(left_.begin() + static_cast<std::ptrdiff_t>(kept), left_.end());
    judge_serving();
}

// A server that has been out of step for syncLimit sends its clients elsewhere.
inline void Service::judge_serving() {
    const bool serves = is_serving();
    if (serves != served_ && log) log(serves ? "serves" : "does not serve: it has no leader");
    served_ = serves;
    if (serves || is_standalone()) served_at_ = now;
    const coord::Duration patience = coord::milliseconds(config.tick_ms) * config.sync_limit;
    if (now - served_at_ <= patience) return;
    visit([this](Connection& connection) {
        connection.shut();
        touch(connection);
    });
}

// A single server has never set it, in ZooKeeper.
inline void Service::show_config(coord::Stat& stat, Bytes* text) const {
    if (!is_standalone()) return;
    stat.data_length = 0;
    stat.mzxid = {}, stat.version = 0, stat.mtime_ms = stat.ctime_ms;
    if (text != nullptr) text->clear();
}

inline Bytes Service::config_text() const {
    if (is_standalone()) return {};
    const auto node = replica.tree().find("/zookeeper/config");
    return node ? Bytes(node->data) : Bytes();
}

}  // namespace zkserver
