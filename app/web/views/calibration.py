"""Calibration: the profiles that predictions lean on, the points behind them, one's own node against its kind."""

from __future__ import annotations

import streamlit as st

from app import calibration
from app.report import validation_figures
from app.report.fleet import headline, quantity_words
from app.web import shell, state
from app.web.state import plain
from sim.spec.faults import ScenarioError

# Of a profile or a measurement file; the largest that ships is half a megabyte.
MOST_BYTES = 20_000_000
# Row tables of the profiles that are of no generation.
OF_PROFILE = {"stacks": ("training",), "shared": ("collectives",)}
COLUMNS = ("quantity", "figures", "median", "lowest", "on", "of datasheet", "of profile", "marked")


def chosen() -> str:
    """Which profile, from the address first."""
    names = calibration.profile_names()
    raw = st.query_params.get("profile", "hopper")
    if raw not in names:
        st.warning(f"The address asks for profile {plain(repr(raw))}; expected one of {', '.join(names)}.")
        raw = names[0]
    name = st.selectbox("Profile", names, index=names.index(raw), key="profile")
    st.query_params["profile"] = name
    return str(name)


def profile_view(name: str) -> None:
    """Errors of each fit, the points behind it, every constant."""
    profile = calibration.shipped_profile(name)
    rows = calibration.fit_rows(profile)
    known = [row["median error, %"] for row in rows if row["median error, %"] is not None]
    cards = [
        ("Fits", f"{len(rows):,}", "", None),
        ("Constants", f"{sum(row['constants'] for row in rows):,}", "", None),
        ("Assumed constants", f"{sum(row['assumed'] for row in rows):,}", "", "Starting values, not measured yet."),
    ]  # fmt: skip
    if known:
        middle = sorted(known)[len(known) // 2]
        cards.append(
            ("Median error", f"{middle:.1f} %", "", "Middle of the fits' errors on rows they had not seen.")
        )
    shell.metrics(cards)
    st.caption(plain(calibration.age_words(profile)))
    against_points(name)
    with st.expander("Every fit with its error"):
        shell.table(rows)
    with st.expander("Every constant with its interval and source"):
        shell.table(calibration.constant_rows(profile))


def against_points(name: str) -> None:
    """The shipped fits against the rows they came from."""
    kinds = [kind for kind in calibration.kinds() if kind in OF_PROFILE.get(name, tuple(calibration.KINDS))]
    tables = {kind: calibration.points(kind) for kind in kinds}
    if name not in OF_PROFILE:
        tables = {
            kind: table[table["generation"] == name] for kind, table in tables.items() if kind != "training"
        }
    tables = {kind: table[table["skipped"] == ""] for kind, table in tables.items()}
    tables = {kind: table for kind, table in tables.items() if len(table)}
    if not tables:
        st.info("No row table holds points of this profile.")
        return
    kind = st.segmented_control(
        "Fit against points", list(tables), default=next(iter(tables)), format_func=calibration.KINDS.get,
        key=f"points:{name}",
    ) or next(iter(tables))  # fmt: skip
    table = tables[kind]
    shell.chart(
        validation_figures.against(table, "predicted_s", "gpu"), table, "fit",
        alt=f"The fit against its points: predicted over measured {calibration.KINDS[kind]}",
    )  # fmt: skip
    with st.expander("Residuals"):
        st.plotly_chart(
            validation_figures.residuals(table, "error_pct"), width="stretch", key="residuals",
            alt="Histogram of the fit's residuals in percent",
        )  # fmt: skip


def own() -> None:
    """A profile, a measurement file or a log of the user's."""
    sent = st.file_uploader(
        "A profile, measurement files, or logs of nccl-tests",
        accept_multiple_files=True,
        key="own",
        max_upload_size=shell.MOST_UPLOAD_MB,
        help="Read in memory and kept for this session only.",
    )
    if not sent:
        st.caption("`rackcast calibrate run` writes both; see how this node stands against its kind.")
        return
    try:
        given = [(file.name, state.uploaded_text(file.getvalue(), file.name, MOST_BYTES)) for file in sent]
    except ScenarioError as error:
        shell.refusals(error)
        return
    try:
        if len(given) == 1 and '"fits"' in given[0][1]:
            name, text = given[0]
            own_profile(text, name)
        else:
            own_nodes(given)
    except ValueError as error:
        for line in str(error).splitlines()[:20]:
            st.error(plain(line))


def own_profile(text: str, name: str) -> None:
    """Each constant beside its kind's."""
    profile = calibration.uploaded_profile(text, name)
    st.write(f"**{plain(profile.name)}**: {len(profile.fits)} fits. {plain(calibration.age_words(profile))}")
    shell.table(calibration.beside_shipped(profile))
    with st.expander("Every fit with its error"):
        shell.table(calibration.fit_rows(profile))


def own_nodes(given: list[tuple[str, str]]) -> None:
    """Each quantity beside peers, datasheet and the shipped profile."""
    document = calibration.measured_nodes(given)
    st.write(f"**{plain(headline(document))}**")
    for row in document["nodes"]:
        if not row["passes"]:
            st.error(f"{plain(row['node'])}: {plain('; '.join(row['reasons']))}")
    shell.table([dict(zip(COLUMNS, quantity_words(row), strict=True)) for row in document["quantities"]])


def page() -> None:
    """The page from top to bottom."""
    st.title("Calibration")
    st.caption("What share of the datasheet the hardware delivers, how we know, and how well it is known.")
    name = chosen()
    profile_view(name)
    st.subheader("Your own node against its kind")
    own()
    st.divider()
    st.caption("The same on the command line")
    st.code("rackcast calibrate report measurements.json", language="bash", wrap_lines=True)


page()
