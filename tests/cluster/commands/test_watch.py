"""`sr3 status --watch`: prints what has changed, and ends when nothing runs."""

from cluster.commands.status import watch


def test_only_what_changed_is_printed_and_the_last_text_is_the_final_one(capsys):
    texts = iter(["step 1", "step 1", "step 2", "done"])
    running = iter([True, True, True, False])
    watch(lambda: next(texts), lambda: next(running), seconds=0.0)
    assert capsys.readouterr().out.splitlines() == ["step 1", "step 2", "done"]
