"""The servers that the tests start are real, and each test finds them empty."""

from __future__ import annotations

import redis
import sqlalchemy as sa

from tests.hub.servers import PostgreSQL, RedisServer


def test_redis_is_real_and_a_restart_empties_it(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.set("a", "1")
        redis_server.stop()
        redis_server.start()

        assert client.get("a") is None


def test_every_database_of_the_server_is_a_new_one(postgresql: PostgreSQL) -> None:
    urls = [postgresql.new_database() for _ in range(2)]

    for url in urls:
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE one (a int)")
            connection.exec_driver_sql("INSERT INTO one VALUES (1)")
            assert connection.exec_driver_sql("SELECT count(*) FROM one").scalar() == 1
        engine.dispose()
    assert len(set(urls)) == 2
