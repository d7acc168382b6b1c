from collections.abc import Callable

from lwddpm.cli.views import run as views

Printed = Callable[[], str]


def test_the_end_of_a_job_says_n_beside_its_metrics(printed: Printed) -> None:
    metrics = {"eval/fd_lite0": 12.5, "eval/fd_lite0_floor": 3.25, "eval/ssim_reconstruction": 0.75}
    views.summary({"metrics": metrics, "n": {"eval/fd_lite0": 2, "eval/ssim_reconstruction": 64}})
    text = printed()
    assert "eval/fd_lite0 │ 12.5 │ 2 │ 3.25" in text
    assert "eval/ssim_reconstruction │ 0.75 │ 64 │" in text
    views.summary({"metrics": metrics})  # kept by 0.1.0
    assert "eval/fd_lite0 │ 12.5 │ - │ 3.25" in printed()


def test_a_comparison_says_what_does_not_beat_the_baseline(printed: Printed) -> None:
    result = {
        "statements": {},
        "measured_on": {},
        "report": "report.html",
        "baseline": {
            "gan": {"name": "GAN", "beats": False},
            "ddpm/noise": {"name": "DDPM, start from noise", "beats": False},
            "lw_ddpm": {"name": "LW-DDPM", "beats": True},
        },
    }
    views.report(result)
    assert "GAN and DDPM (start from noise) do not beat a Gaussian of the training slices" in printed()
    views.summary({"statements": {"lighter": "supports"}, "baseline": {"gan": {"name": "GAN", "beats": True}}})
    assert "every system beats a Gaussian" in printed()
    views.summary({"statements": {"lighter": "supports"}})  # of an earlier version
    assert "Gaussian" not in printed()


def test_statements_have_what_they_were_measured_on(printed: Printed) -> None:
    views.report({"statements": {"lighter": "supports"}, "measured_on": {"lighter": "counted"}, "report": "r.html"})
    assert "LW-DDPM has fewer parameters than DDPM │ supports │ counted" in printed()
