"""What TimescaleDB would be told: the difference to what it was told already, in SQL that PostgreSQL's parser takes."""

import json
from dataclasses import replace

import pglast
import pytest
from pglast import ast
from pglast.enums import AlterTableType

from headrace.connectors.timescale.continuous_aggregates import BINS, MEASURES_PER_VIEW, column, views_of
from headrace.connectors.timescale.migrations import MIGRATIONS, Migration, packaged
from headrace.connectors.timescale.policies import Action, job_removal, missing_features, plan, view_removal
from headrace.connectors.timescale.readings_table import MAX_NAME_BYTES, ReadingsTable, TableSpec
from headrace.connectors.timescale.settings import DAY, TimescaleSettings
from headrace.connectors.timescale.timescale_state import RefreshJob, TimescaleState

AIR = ReadingsTable(TableSpec("air", ("co2", "PM2.5 'µg'")))
PLAIN = ReadingsTable(TableSpec("plain"))
SETTINGS = TimescaleSettings()
#: After the migrations, before any policy.
NEW = TimescaleState(chunks={"readings_air": DAY, "readings_plain": DAY, "rollups": 7 * DAY, "anomalies": 7 * DAY})
VIEWS = [f"readings_air_{bin_}" for bin_ in BINS]
COLUMNS = frozenset(column(f, m) for f in ("count", "sum", "min", "max") for m in AIR.spec.measures)
#: With everything as `SETTINGS` say.
DONE = replace(
    NEW,
    columnstore={
        "readings_air": ("device_id", "time DESC"),
        "readings_plain": ("device_id", "time DESC"),
        "rollups": ("device_type, device_id, window", "start DESC"),
    },
    after=dict.fromkeys(("readings_air", "readings_plain", "rollups"), 7 * DAY),
    views=dict.fromkeys(VIEWS, COLUMNS),
    jobs=[RefreshJob(1000, 900.0, {"views": VIEWS, "window": "2592000 seconds"})],
)


def sql(actions: list[Action]) -> list[str]:
    """The statements, each checked by PostgreSQL's own parser to be one."""
    for action in actions:
        assert len(pglast.parse_sql(action.sql)) == 1
    return [" ".join(action.sql.split()) for action in actions]


def test_new_database() -> None:
    """Columnstore, its policy, aggregates from fine to coarse, one job for all; for a type without measures none."""
    found = sql(plan(NEW, SETTINGS, [AIR, PLAIN]))

    assert found[:2] == [
        'ALTER TABLE "readings_air" SET (timescaledb.enable_columnstore = true, '
        "timescaledb.segmentby = 'device_id', timescaledb.orderby = 'time DESC')",
        "CALL add_columnstore_policy('\"readings_air\"', after => INTERVAL '604800 seconds')",
    ]
    made = [each.split('"')[1] for each in found if each.startswith("CREATE MATERIALIZED VIEW")]
    assert made == VIEWS
    assert found[-1].startswith("SELECT add_job('headrace_refresh', INTERVAL '900 seconds', config => ")
    assert json.loads(found[-1].split("'")[5]) == {"views": VIEWS, "window": "2592000 seconds"}
    assert not any("readings_plain_" in each for each in found)
    assert not any("add_retention_policy" in each for each in found)


def test_configured_database_is_left_alone() -> None:
    """Nothing is to do where everything was told, whatever else the server has."""
    others = replace(DONE, views={**DONE.views, "theirs": frozenset({"bucket"})}, chunks={**DONE.chunks, "their": 1.0})

    assert plan(others, SETTINGS, [AIR, PLAIN]) == []
    assert plan(DONE, SETTINGS, [PLAIN]) == []  # a process that knows fewer tables takes none away from the job


def test_aggregates_merge_what_the_finer_ones_have() -> None:
    """Counts are summed and stay integers, sums summed, extremes compared."""
    create = [action.sql for action in plan(NEW, SETTINGS, [AIR]) if "MATERIALIZED" in action.sql]

    assert 'count("co2") AS "count_co2"' in create[0]
    assert "time_bucket(INTERVAL '15 minutes', time) AS bucket" in create[0]
    for statement, source in zip(create[1:], VIEWS, strict=False):
        assert f'FROM "{source}" GROUP BY 1, 2 WITH NO DATA' in statement
        assert 'sum("count_co2")::bigint AS "count_co2", sum("sum_co2") AS "sum_co2"' in statement
        assert "materialized_only = false" in statement


def test_new_measure_gets_views_of_its_own() -> None:
    """What older views hold stays as it is, and the job refreshes both."""
    more = ReadingsTable(TableSpec("air", (*AIR.spec.measures, "noise")))

    found = sql(plan(DONE, SETTINGS, [more, PLAIN]))

    assert [each.split('"')[1] for each in found[:3]] == [f"{view}_2" for view in VIEWS]
    assert all("noise" in each and "co2" not in each for each in found[:3])
    assert found[3].startswith("SELECT alter_job(1000, schedule_interval => INTERVAL '900 seconds', config => ")
    assert json.loads(found[3].split("'")[3])["views"] == [*VIEWS, *(f"{view}_2" for view in VIEWS)]
    assert len(found) == 4


def test_measure_that_is_gone_changes_nothing() -> None:
    """Its views stay, as its column does."""
    assert plan(DONE, SETTINGS, [ReadingsTable(TableSpec("air", ("co2",))), PLAIN]) == []


def test_changed_settings_replace_policies() -> None:
    """An interval cannot be changed in place: the old policy goes first."""
    changed = TimescaleSettings(
        columnstore_after=14 * DAY, chunk_interval=DAY / 2, rollup_retention=365 * DAY, refresh_every=60, lateness=DAY
    )

    found = sql(plan(DONE, changed, [AIR]))

    assert found == [
        "SELECT set_chunk_time_interval('\"readings_air\"', INTERVAL '43200 seconds')",
        "CALL remove_columnstore_policy('\"readings_air\"')",
        "CALL add_columnstore_policy('\"readings_air\"', after => INTERVAL '1209600 seconds')",
        "CALL remove_columnstore_policy('\"rollups\"')",
        "CALL add_columnstore_policy('\"rollups\"', after => INTERVAL '1209600 seconds')",
        "SELECT add_retention_policy('\"rollups\"', drop_after => INTERVAL '31536000 seconds')",
        found[-1],
    ]
    assert found[-1].startswith("SELECT alter_job(1000, schedule_interval => INTERVAL '60 seconds'")


def test_readings_never_leave_by_a_policy() -> None:
    """Only rollups and aggregates do: readings leave when their archive was read back."""
    short = TimescaleSettings(rollup_retention=90 * DAY, aggregate_retention=90 * DAY)

    kept = [each for each in sql(plan(DONE, short, [AIR, PLAIN])) if "retention" in each]

    assert [each.split('"')[1] for each in kept] == ["rollups", *VIEWS]


def test_switched_off() -> None:
    """Policies and jobs go; columns that are, and views, stay."""
    off = TimescaleSettings(columnstore=False, aggregates=False)

    assert sql(plan(DONE, off, [AIR])) == [
        "CALL remove_columnstore_policy('\"readings_air\"')",
        "CALL remove_columnstore_policy('\"rollups\"')",
        "SELECT delete_job(1000)",
    ]


def test_second_job_goes() -> None:
    """Of two jobs that refresh, from whatever time, one is left."""
    twice = replace(DONE, jobs=[*DONE.jobs, RefreshJob(1001, 60.0, {})])

    assert sql(plan(twice, SETTINGS, [AIR])) == ["SELECT delete_job(1001)"]


def test_lesser_servers() -> None:
    """The Apache edition gets chunk intervals alone, an old one no columnstore; both are told."""
    apache, old = replace(NEW, community=False), replace(NEW, version=(2, 17, 2))

    assert plan(apache, SETTINGS, [AIR]) == []
    assert "community edition" in missing_features(apache)[0]
    assert not any("columnstore" in each for each in sql(plan(old, SETTINGS, [AIR])))
    assert "2.18" in missing_features(old)[0]
    assert "no TimescaleDB" in missing_features(None)[0]
    assert missing_features(NEW) == []


def test_many_measures_with_long_names() -> None:
    """More columns than a table can have are shared out, and names that PostgreSQL would cut stay distinct."""
    names = tuple(f"{'m' * 58}{number}" for number in range(MEASURES_PER_VIEW + 1))
    wide = ReadingsTable(TableSpec("w" * 80, names))

    new, all_names = views_of(wide, {})

    assert [len(view.measures) for view in new] == [MEASURES_PER_VIEW] * 3 + [1] * 3
    assert len(set(all_names)) == len(view_removal(all_names)) == 6
    columns = [column("count", name) for name in names]
    assert len(set(columns)) == len(columns)
    assert max(len(each.encode()) for each in (*all_names, *columns)) <= MAX_NAME_BYTES
    for view in new:
        pglast.parse_sql(view.create)
    there = {view.name: frozenset(column("count", name) for name in view.measures) for view in new}
    assert views_of(wide, there)[0] == []


def test_views_are_dropped_before_what_they_are_made_of() -> None:
    """The coarsest first, and the job before all."""
    names = ["readings_air_15m", "readings_air_1h_2", "readings_air_1d", "readings_air_15m_2", "readings_air_1h"]

    assert job_removal(DONE) == ["SELECT delete_job(1000)"]
    dropped = [each.split('"')[1] for each in view_removal(names)]
    assert sorted(dropped) == sorted(names)
    assert [each.split("_")[2] for each in dropped] == ["1d", "1h", "1h", "15m", "15m"]


#: What an up file may hold from 0004 on: it makes things, and changes nothing that is there.
ADDITIVE = (
    ast.CreateStmt,
    ast.IndexStmt,
    ast.CreateFunctionStmt,
    ast.ViewStmt,
    ast.CommentStmt,
    ast.CreateExtensionStmt,
    ast.SelectStmt,
    ast.DoStmt,
)


@pytest.mark.parametrize(
    "step", [step for step in packaged(MIGRATIONS) if step.version >= "0004"], ids=lambda step: step.version
)
def test_migrations_only_add(step: Migration) -> None:
    """They drop nothing, and add columns so that no row is written anew: without a default, or with a constant one."""
    for statement in pglast.parse_sql(step.up):
        found = statement.stmt
        if isinstance(found, ast.InsertStmt):  # into what this step itself makes
            assert found.relation is not None
            assert f"CREATE TABLE {found.relation.relname} " in step.up
            continue
        if not isinstance(found, ast.AlterTableStmt):
            assert isinstance(found, ADDITIVE), found
            continue
        for command in found.cmds or ():
            assert command.subtype == AlterTableType.AT_AddColumn
            for constraint in command.def_.constraints or ():
                default = constraint.raw_expr
                assert default is None or isinstance(
                    default.arg if isinstance(default, ast.TypeCast) else default, ast.A_Const
                )


@pytest.mark.parametrize("step", packaged(MIGRATIONS), ids=lambda step: step.version)
def test_migrations_parse(step: Migration) -> None:
    """Up and down are SQL, those that only TimescaleDB can run too."""
    assert pglast.parse_sql(step.up)
    pglast.parse_sql(step.down or "")


def test_procedure_of_the_refresh_job_parses() -> None:
    """With what `format` fills in, as PL/pgSQL; it commits after each view and refreshes none that is gone."""
    step = next(step for step in packaged(MIGRATIONS) if step.version == "0005_refresh")
    template = step.up.split("$procedure$")[1]
    procedure = template.replace("%L", "'public'").replace("%s.refresh", "public.refresh").replace("%%", "%")

    pglast.parse_sql(procedure)
    pglast.parse_plpgsql(procedure)
    assert procedure.index("refresh_continuous_aggregate(") < procedure.index("COMMIT;")
