"""Fixtures of the integration tests: images built once, deployments shared by the tests that leave them mended.

A test begins with ``deployment.ready(workers=N)``, which repairs what the test before it has broken.
"""

import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from integration.deployment import HERE, ROOT, Deployment, plain_environment


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("timeout") is None:
            # Starting a deployment counts for the first test that uses it.
            item.add_marker(pytest.mark.timeout(240))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows the logs of every container."""
    report = yield
    if report.failed:
        for deployment in Deployment.running:
            report.sections += deployment.report()
    return report


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For settings and the application."""
    plain_environment()
    return tmp_path_factory.mktemp("rabbitbal")


@pytest.fixture(scope="session")
def app_dir(directory: Path) -> str:
    """The demo application, and the tests' own beside it. Workers read it as a user without rights."""
    target = directory / "app"
    target.mkdir(mode=0o755)
    for source in (*(ROOT / "compose" / "demo").glob("*.py"), *(HERE / "apps").glob("*.py")):
        shutil.copy(source, target)
    target.chmod(0o755)
    return str(target)


@pytest.fixture(scope="session")
def images(directory: Path) -> None:
    """Every image, built from the sources as they are."""
    Deployment(directory).build()


@pytest.fixture(scope="session")
def shared(directory: Path, app_dir: str, images: None) -> Iterator[Deployment]:
    """Long deadlines: for what must survive."""
    yield from _up(
        Deployment(
            directory,
            RABBITBAL_APP_DIR=app_dir,
            RABBITBAL_APP="probe:app",
            RABBITBAL_BOTS_VERDICT="8",
            RABBITBAL_TIMEOUT="60",
            RABBITBAL_BROKER_GRACE="40",
        ),
        workers=8,
    )


@pytest.fixture(scope="session")
def strict(directory: Path, app_dir: str, images: None) -> Iterator[Deployment]:
    """One worker of two slots, a queue of three, short deadlines: for what must be refused."""
    yield from _up(
        Deployment(
            directory,
            RABBITBAL_APP_DIR=app_dir,
            RABBITBAL_APP="probe:app",
            RABBITBAL_CONCURRENCY="2",
            RABBITBAL_POOL_LENGTH="3",
            RABBITBAL_BODY_LIMIT="100000",
            RABBITBAL_TIMEOUT="4",
            RABBITBAL_ROUTE_GRACE="3",
            RABBITBAL_BROKER_GRACE="1",
        ),
        workers=1,
    )


@pytest.fixture(scope="session")
def small(directory: Path, app_dir: str, images: None) -> Iterator[Deployment]:
    """One slot in each worker, and an HTTP server on the bus: for what the workers run and how they take it."""
    yield from _up(
        Deployment(
            directory,
            ("tests/integration/test_targets.yml",),
            RABBITBAL_APP_DIR=app_dir,
            RABBITBAL_APP="probe:app",
            RABBITBAL_CONCURRENCY="1",
        ),
        workers=3,
    )


@pytest.fixture(scope="session")
def pooled(directory: Path, app_dir: str, images: None) -> Iterator[Deployment]:
    """Five pools, one of them sticky, with a group of workers each: for routes, moves, copies, sessions and replays."""
    yield from _up(
        Deployment(
            directory,
            ("tests/integration/test_pools.yml",),
            groups={"worker-north": 1, "worker-south": 1, "worker-shop": 2, "worker-canary": 1},
            RABBITBAL_APP_DIR=app_dir,
            RABBITBAL_APP="probe:app",
            RABBITBAL_CONCURRENCY="2",
            RABBITBAL_TIMEOUT="20",
            RABBITBAL_ROUTE_GRACE="5",
            RABBITBAL_OPERATOR="the tests",
        ),
        workers=1,
    )


def _up(deployment: Deployment, workers: int) -> Iterator[Deployment]:
    try:
        try:
            deployment.up(workers)
        except Exception as error:
            # By the time of the report this deployment is gone.
            error.add_note("\n".join(f"--- {title}\n{text}" for title, text in deployment.report()))
            raise
        yield deployment
    finally:
        deployment.down()
