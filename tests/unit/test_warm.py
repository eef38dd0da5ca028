from cfrec import warm


def test_all_is_imported_and_frozen_once_however_often_it_is_asked_for(monkeypatch):
    """Frozen again, what visitors have left behind would never be freed; and any visitor can have the app's caches cleared."""
    begun: list[float] = []
    monkeypatch.setattr(warm, "_import_all", begun.append)
    warm.warm_up.cache_clear()
    try:
        threads = [warm.warm_up(), warm.warm_up()]
        threads[0].join()
        assert threads[0] is threads[1]
        assert begun == [1.0]
    finally:
        warm.warm_up.cache_clear()
