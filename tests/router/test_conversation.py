from proctor.router.conversation import HEAD, TAIL, Conversation, Turn, bounded


def test_the_last_user_turn_is_the_prompt() -> None:
    turns = (
        Turn("system", "be brief"),
        Turn("user", "first"),
        Turn("assistant", "answer"),
        Turn("user", "second"),
        Turn("tool", "42"),
    )
    conversation = Conversation(turns)
    assert conversation.prompt == "second"
    assert [turn.text for turn in conversation.context] == ["first", "answer"]


def test_no_user_turn_is_an_empty_prompt() -> None:
    for turns in [(), (Turn("system", "x"),), (Turn("assistant", "x"),)]:
        assert Conversation(turns).prompt == ""
        assert Conversation(turns).context == ()


def test_a_long_text_is_cut_in_the_middle() -> None:
    text = "a" * HEAD + "b" * 1000 + "c" * TAIL
    assert bounded(text) == "a" * HEAD + "\n" + "c" * TAIL
    assert bounded(text[:100]) == text[:100]
