"""The keys of a secret, and which secret protects new records."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from proctor.server.turns.keyring import SIGNS_AFTER, Keyring, RecordKeys, Secret, issuing_first
from tests.server.turns.records import OTHER_SECRET, SECRET

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def keys_of(secret: bytes) -> list[bytes]:
    keys = RecordKeys.of(secret)
    return [keys.id, keys.signing, keys.sealing, keys.naming, keys.digesting]


def test_each_purpose_of_each_secret_has_its_own_key() -> None:
    derived = keys_of(SECRET) + keys_of(OTHER_SECRET)

    assert len({key[:8] for key in derived}) == len(derived)
    assert keys_of(SECRET) == keys_of(SECRET)


def test_secrets_are_not_in_what_is_logged() -> None:
    logged = repr([Secret(SECRET, NOW), Keyring.of([SECRET])])

    assert not [key for key in [SECRET, *keys_of(SECRET)[1:]] if repr(key) in logged]


def test_the_first_of_several_secrets_protects_new_records() -> None:
    keyring = Keyring.of([SECRET, OTHER_SECRET])

    assert keyring.issuing == RecordKeys.of(SECRET)
    assert set(keyring.by_id) == {RecordKeys.of(SECRET).id, RecordKeys.of(OTHER_SECRET).id}


@given(ages=st.lists(st.integers(0, 30), min_size=1, max_size=5, unique=True))
def test_a_secret_protects_records_once_all_gateways_can_know_it(ages: list[int]) -> None:
    secrets = [Secret(bytes([age]), NOW - timedelta(seconds=age)) for age in ages]

    first, *others = issuing_first(secrets, NOW)

    settled = [age for age in ages if age >= SIGNS_AFTER.total_seconds()]
    assert first.value == bytes([min(settled) if settled else max(ages)])
    assert sorted(each.value for each in [first, *others]) == sorted(bytes([age]) for age in ages)
