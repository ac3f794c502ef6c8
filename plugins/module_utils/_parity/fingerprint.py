# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Schema fingerprint: every object's definition out of the catalogs, comparable across major versions 13 to 18.

A definition has two parts. ``facts`` must be equal on both sides. ``text`` is what the server prints from a parsed query (views,
rules, SQL bodies). Two majors may print the same query differently: across majors it is compared without qualifiers (16 prints
fewer of them; what a view depends on is among its facts), and what differs even then is reported as not compared instead of as a
false alarm.
"""

from __future__ import annotations

import hashlib
import json
import re
import typing as t
from dataclasses import dataclass, field

from .._postgresql import client
from .names import GUARD_TRIGGER, SCHEMA, SYSTEM_SCHEMAS

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# Objects of users: not the system's, not ours, not an extension's (those follow from the extension).
_SCHEMAS = "n.nspname !~ '^pg_(temp|toast_temp)_' AND n.nspname NOT IN (" + ", ".join(f"'{name}'" for name in (*SYSTEM_SCHEMAS, SCHEMA)) + ")"


def _not_extension(catalog: str, oid: str) -> str:
    return f"NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = '{catalog}'::regclass AND x.objid = {oid} AND x.deptype = 'e')"


def _privileges(acl: str, kind: str, owner: str) -> str:
    """Sorted privileges of an ACL without grantors; MAINTAIN (17+) is left out because older majors have no word for it."""
    return (
        "(SELECT array_agg(g.word ORDER BY g.word COLLATE \"C\") FROM (SELECT CASE WHEN a.grantee = 0 THEN 'public' ELSE "
        "quote_ident(pg_get_userbyid(a.grantee)) END || '=' || a.privilege_type || CASE WHEN a.is_grantable THEN '*' ELSE '' END AS word "
        f"FROM aclexplode(coalesce({acl}, acldefault('{kind}', {owner}))) a WHERE a.privilege_type <> 'MAINTAIN') g)"
    )


def _relation_privileges() -> str:
    """As _privileges, for a row of pg_class: a sequence has other defaults than a table."""
    return f"CASE c.relkind WHEN 'S' THEN {_privileges('c.relacl', 's', 'c.relowner')} ELSE {_privileges('c.relacl', 'r', 'c.relowner')} END"


# Constructors of a range belong to the server's first superuser, whatever it is called there, and come and go with the type.
_MADE_WITH_A_TYPE = (
    "EXISTS (SELECT FROM pg_depend x WHERE x.classid = 'pg_proc'::regclass AND x.objid = p.oid AND x.refclassid = 'pg_type'::regclass AND x.deptype = 'i')"
)
_RELATION_NAME = "format('%I.%I', n.nspname, c.relname)"
_FROM_RELATION = "pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"

# Each returns kind, name, facts (jsonb) and text (or NULL).
_QUERIES: dict[str, str] = {
    "schemas": f"""
        SELECT 'schema' AS kind, quote_ident(n.nspname) AS name,
               CASE WHEN n.nspname = 'public' THEN '{{}}'::jsonb ELSE jsonb_build_object(
                   'owner', pg_get_userbyid(n.nspowner), 'privileges', {_privileges("n.nspacl", "n", "n.nspowner")}) END AS facts, NULL AS text
        FROM pg_namespace n WHERE {_SCHEMAS} AND {_not_extension("pg_namespace", "n.oid")}""",
    "relations": f"""
        SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence' WHEN 'f' THEN 'foreign table'
                              WHEN 'c' THEN 'composite type' ELSE 'table' END AS kind,
               {_RELATION_NAME} AS name,
               jsonb_build_object(
                   'kind', c.relkind, 'persistence', c.relpersistence, 'owner', pg_get_userbyid(c.relowner),
                   'privileges', CASE WHEN c.relkind <> 'c' THEN {_relation_privileges()} END,
                   'options', (SELECT array_agg(o ORDER BY o) FROM unnest(c.reloptions) o),
                   'row_security', c.relrowsecurity, 'force_row_security', c.relforcerowsecurity,
                   'replica_identity', c.relreplident,
                   'partition_by', CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END,
                   'partition_bound', pg_get_expr(c.relpartbound, c.oid),
                   'parents', (SELECT array_agg(i.inhparent::regclass::text ORDER BY i.inhseqno) FROM pg_inherits i WHERE i.inhrelid = c.oid),
                   'of_type', CASE WHEN c.reloftype <> 0 THEN format_type(c.reloftype, NULL) END,
                   'server', (SELECT s.srvname FROM pg_foreign_table f JOIN pg_foreign_server s ON s.oid = f.ftserver WHERE f.ftrelid = c.oid),
                   'depends_on', CASE WHEN c.relkind IN ('v', 'm') THEN
                       (SELECT array_agg(DISTINCT i.identity COLLATE "C") FROM pg_rewrite r
                            JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                            CROSS JOIN LATERAL pg_identify_object(d.refclassid, d.refobjid, d.refobjsubid) i
                        WHERE r.ev_class = c.oid AND d.refobjid <> c.oid) END) AS facts,
               CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END AS text
        FROM {_FROM_RELATION}
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') AND {_SCHEMAS} AND {_not_extension("pg_class", "c.oid")}""",
    # A partition's identity is its parent's: only since 17 the partition says so itself.
    "columns": f"""
        SELECT 'column' AS kind, {_RELATION_NAME} || '.' || quote_ident(a.attname) AS name,
               jsonb_build_object(
                   'position', row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum), 'type', format_type(a.atttypid, a.atttypmod),
                   'not_null', a.attnotnull, 'default', pg_get_expr(d.adbin, d.adrelid), 'generated', a.attgenerated,
                   'identity', CASE WHEN NOT c.relispartition THEN a.attidentity END,
                   'collation', CASE WHEN a.attcollation <> ty.typcollation THEN
                       (SELECT format('%I.%I', cn.nspname, co.collname) FROM pg_collation co JOIN pg_namespace cn ON cn.oid = co.collnamespace
                        WHERE co.oid = a.attcollation) END,
                   'privileges', CASE WHEN a.attacl IS NOT NULL THEN {_privileges("a.attacl", "c", "c.relowner")} END) AS facts,
               NULL AS text
        FROM {_FROM_RELATION} JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type ty ON ty.oid = a.atttypid
             LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c')
              AND {_SCHEMAS} AND {_not_extension("pg_class", "c.oid")}""",
    # NOT NULL stands with the columns, because only 18 has constraints of that kind. Foreign keys that the server made for partitions
    # are left out: their numbers follow the order of creation.
    "constraints": f"""
        SELECT 'constraint' AS kind,
               CASE WHEN o.contypid <> 0 THEN format_type(o.contypid, NULL) ELSE {_RELATION_NAME} END || '.' || quote_ident(o.conname) AS name,
               jsonb_build_object('kind', o.contype, 'validated', o.convalidated, 'definition', pg_get_constraintdef(o.oid)) AS facts, NULL AS text
        FROM pg_constraint o JOIN pg_namespace n ON n.oid = o.connamespace LEFT JOIN pg_class c ON c.oid = o.conrelid
        WHERE o.contype NOT IN ('n', 't') AND NOT (o.contype = 'f' AND o.conparentid <> 0) AND {_SCHEMAS}
              AND {_not_extension("pg_constraint", "o.oid")}
              AND (o.conrelid = 0 OR {_not_extension("pg_class", "o.conrelid")}) AND (o.contypid = 0 OR {_not_extension("pg_type", "o.contypid")})""",
    "indexes": f"""
        SELECT 'index' AS kind, {_RELATION_NAME} AS name,
               jsonb_build_object('definition', pg_get_indexdef(i.indexrelid), 'unique', i.indisunique, 'primary', i.indisprimary,
                   'valid', i.indisvalid, 'replica_identity', i.indisreplident,
                   'options', (SELECT array_agg(o ORDER BY o) FROM unnest(c.reloptions) o)) AS facts, NULL AS text
        FROM {_FROM_RELATION} JOIN pg_index i ON i.indexrelid = c.oid
        WHERE {_SCHEMAS} AND {_not_extension("pg_class", "i.indrelid")} AND {_not_extension("pg_class", "c.oid")}""",
    "sequences": f"""
        SELECT 'sequence definition' AS kind, {_RELATION_NAME} AS name,
               jsonb_build_object('type', format_type(s.seqtypid, NULL), 'start', s.seqstart, 'increment', s.seqincrement, 'min', s.seqmin,
                   'max', s.seqmax, 'cycle', s.seqcycle, 'cache', s.seqcache,
                   'owned_by', (SELECT d.refobjid::regclass::text || '.' || quote_ident(a.attname) FROM pg_depend d
                                JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                                WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass
                                      AND d.deptype IN ('a', 'i'))) AS facts, NULL AS text
        FROM {_FROM_RELATION} JOIN pg_sequence s ON s.seqrelid = c.oid
        WHERE {_SCHEMAS} AND {_not_extension("pg_class", "c.oid")}""",
    "triggers": f"""
        SELECT 'trigger' AS kind, {_RELATION_NAME} || '.' || quote_ident(g.tgname) AS name,
               jsonb_build_object('enabled', g.tgenabled, 'definition', pg_get_triggerdef(g.oid)) AS facts, NULL AS text
        FROM {_FROM_RELATION} JOIN pg_trigger g ON g.tgrelid = c.oid
        WHERE NOT g.tgisinternal AND g.tgname <> '{GUARD_TRIGGER}' AND {_SCHEMAS}
              AND {_not_extension("pg_trigger", "g.oid")} AND {_not_extension("pg_class", "c.oid")}""",
    "rules": f"""
        SELECT 'rule' AS kind, {_RELATION_NAME} || '.' || quote_ident(r.rulename) AS name,
               jsonb_build_object('enabled', r.ev_enabled, 'event', r.ev_type, 'instead', r.is_instead) AS facts, pg_get_ruledef(r.oid) AS text
        FROM {_FROM_RELATION} JOIN pg_rewrite r ON r.ev_class = c.oid
        WHERE r.rulename <> '_RETURN' AND {_SCHEMAS} AND {_not_extension("pg_class", "c.oid")}""",
    "policies": f"""
        SELECT 'policy' AS kind, {_RELATION_NAME} || '.' || quote_ident(p.polname) AS name,
               jsonb_build_object('command', p.polcmd, 'permissive', p.polpermissive,
                   'roles', (SELECT array_agg(CASE WHEN r = 0 THEN 'public' ELSE quote_ident(pg_get_userbyid(r)) END ORDER BY pg_get_userbyid(r) COLLATE "C")
                             FROM unnest(p.polroles) r),
                   'using', pg_get_expr(p.polqual, p.polrelid), 'check', pg_get_expr(p.polwithcheck, p.polrelid)) AS facts, NULL AS text
        FROM {_FROM_RELATION} JOIN pg_policy p ON p.polrelid = c.oid
        WHERE {_SCHEMAS} AND {_not_extension("pg_class", "c.oid")}""",
    "functions": f"""
        SELECT CASE p.prokind WHEN 'a' THEN 'aggregate' WHEN 'p' THEN 'procedure' ELSE 'function' END AS kind,
               format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)) AS name,
               jsonb_build_object('kind', p.prokind, 'arguments', pg_get_function_arguments(p.oid), 'result', pg_get_function_result(p.oid),
                   'language', l.lanname, 'volatile', p.provolatile, 'security_definer', p.prosecdef, 'leakproof', p.proleakproof,
                   'strict', p.proisstrict, 'parallel', p.proparallel, 'settings', (SELECT array_agg(s ORDER BY s) FROM unnest(p.proconfig) s),
                   'cost', p.procost, 'rows', p.prorows, 'body_md5', md5(p.prosrc), 'library', p.probin,
                   'aggregate', (SELECT jsonb_build_object('transition', g.aggtransfn::text, 'final', g.aggfinalfn::text, 'initial', g.agginitval,
                                        'state', format_type(g.aggtranstype, NULL)) FROM pg_aggregate g WHERE g.aggfnoid = p.oid),
                   'owner', CASE WHEN NOT {_MADE_WITH_A_TYPE} THEN pg_get_userbyid(p.proowner) END,
                   'privileges', CASE WHEN NOT {_MADE_WITH_A_TYPE} THEN {_privileges("p.proacl", "f", "p.proowner")} END) AS facts,
               %(sql_body)s AS text
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
        WHERE {_SCHEMAS} AND {_not_extension("pg_proc", "p.oid")}""",
    "types": f"""
        SELECT CASE y.typtype WHEN 'e' THEN 'enum' WHEN 'd' THEN 'domain' WHEN 'r' THEN 'range' WHEN 'm' THEN 'multirange' ELSE 'type' END AS kind,
               format('%I.%I', n.nspname, y.typname) AS name,
               jsonb_build_object('owner', pg_get_userbyid(y.typowner),
                   'privileges', CASE WHEN y.typtype <> 'm' THEN {_privileges("y.typacl", "T", "y.typowner")} END,
                   'labels', (SELECT array_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = y.oid),
                   'base', CASE WHEN y.typtype = 'd' THEN format_type(y.typbasetype, y.typtypmod) END,
                   'not_null', y.typnotnull, 'default', y.typdefault,
                   'collation', CASE WHEN y.typtype = 'd' THEN
                       (SELECT format('%I.%I', cn.nspname, co.collname) FROM pg_collation co JOIN pg_namespace cn ON cn.oid = co.collnamespace
                        WHERE co.oid = y.typcollation) END,
                   'range', (SELECT jsonb_build_object('subtype', format_type(r.rngsubtype, NULL), 'canonical', r.rngcanonical::text,
                                    'difference', r.rngsubdiff::text, 'class', (SELECT opcname FROM pg_opclass WHERE oid = r.rngsubopc))
                             FROM pg_range r WHERE r.rngtypid = y.oid)) AS facts, NULL AS text
        FROM pg_type y JOIN pg_namespace n ON n.oid = y.typnamespace
        WHERE y.typtype IN ('e', 'd', 'r', 'm', 'b') AND y.typelem = 0 AND {_SCHEMAS} AND {_not_extension("pg_type", "y.oid")}""",
    "extensions": """
        SELECT 'extension' AS kind, quote_ident(e.extname) AS name,
               jsonb_build_object('schema', n.nspname) AS facts, NULL AS text
        FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace""",
    "statistics": f"""
        SELECT 'statistics' AS kind, format('%I.%I', n.nspname, s.stxname) AS name, jsonb_build_object('definition', pg_get_statisticsobjdef(s.oid)) AS facts,
               NULL AS text
        FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE {_SCHEMAS} AND {_not_extension("pg_statistic_ext", "s.oid")}""",
    "default_privileges": """
        SELECT 'default privileges' AS kind,
               quote_ident(pg_get_userbyid(d.defaclrole)) || coalesce(' in ' || quote_ident(n.nspname), '') || ' on ' || d.defaclobjtype::text AS name,
               jsonb_build_object('privileges', (SELECT array_agg(g.word ORDER BY g.word COLLATE "C") FROM (
                   SELECT CASE WHEN a.grantee = 0 THEN 'public' ELSE quote_ident(pg_get_userbyid(a.grantee)) END || '=' || a.privilege_type
                          || CASE WHEN a.is_grantable THEN '*' ELSE '' END AS word
                   FROM aclexplode(d.defaclacl) a WHERE a.privilege_type <> 'MAINTAIN') g)) AS facts, NULL AS text
        FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace""",
    "event_triggers": f"""
        SELECT 'event trigger' AS kind, quote_ident(e.evtname) AS name,
               jsonb_build_object('event', e.evtevent, 'function', e.evtfoid::regproc::text, 'enabled', e.evtenabled, 'tags', e.evttags) AS facts, NULL AS text
        FROM pg_event_trigger e WHERE e.evtname NOT LIKE '{SCHEMA}%' AND {_not_extension("pg_event_trigger", "e.oid")}""",
    # What applications seldom make: that it exists, by its identity.
    "others": f"""
        SELECT i.type AS kind, i.identity AS name, '{{}}'::jsonb AS facts, NULL AS text
        FROM (
            SELECT 'pg_operator'::regclass AS class, oid FROM pg_operator UNION ALL SELECT 'pg_opclass'::regclass, oid FROM pg_opclass
            UNION ALL SELECT 'pg_opfamily'::regclass, oid FROM pg_opfamily UNION ALL SELECT 'pg_cast'::regclass, oid FROM pg_cast
            UNION ALL SELECT 'pg_conversion'::regclass, oid FROM pg_conversion UNION ALL SELECT 'pg_collation'::regclass, oid FROM pg_collation
            UNION ALL SELECT 'pg_ts_config'::regclass, oid FROM pg_ts_config UNION ALL SELECT 'pg_ts_dict'::regclass, oid FROM pg_ts_dict
            UNION ALL SELECT 'pg_ts_parser'::regclass, oid FROM pg_ts_parser UNION ALL SELECT 'pg_ts_template'::regclass, oid FROM pg_ts_template
            UNION ALL SELECT 'pg_language'::regclass, oid FROM pg_language UNION ALL SELECT 'pg_am'::regclass, oid FROM pg_am
            UNION ALL SELECT 'pg_transform'::regclass, oid FROM pg_transform
            UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid FROM pg_foreign_data_wrapper
            UNION ALL SELECT 'pg_foreign_server'::regclass, oid FROM pg_foreign_server) o
            CROSS JOIN LATERAL pg_identify_object(o.class, o.oid, 0) i
        WHERE o.oid >= 16384 AND coalesce(i.schema, '') NOT IN ('{SCHEMA}', 'pg_catalog', 'information_schema')
              AND NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = o.class AND x.objid = o.oid AND x.deptype = 'e')""",
}
# pg_collation and pg_ts_* of the system have oids of users' range where initdb or an import made them: their schema tells.

_DATABASE = """
    SELECT pg_encoding_to_char(d.encoding) AS encoding, d.datcollate AS collate, d.datctype AS ctype,
           current_setting('server_version_num')::int / 10000 AS major
    FROM pg_database d WHERE d.datname = current_database()"""

SHOWN_CHARACTERS = 300
# Their definitions may hold what nobody wants in a log.
NOT_SHOWN = ("function", "procedure", "aggregate")


@dataclass(frozen=True)
class Definition:
    """One object.

    :param facts: canonical JSON, equal on both sides or a mismatch
    :param text: what the server prints for it, white space collapsed; '' where nothing is printed
    """

    facts: str
    text: str = ""

    @property
    def sha256(self) -> str:
        """Hash of both parts."""
        return hashlib.sha256(f"{self.facts}\n{self.text}".encode()).hexdigest()


@dataclass(frozen=True)
class Fingerprint:
    """One side's schema.

    :param major: PostgreSQL's major version
    :param encoding: of the database
    :param locale: collation and ctype of the database (reported, because their spelling differs between systems)
    :param objects: definition by ``"<kind> <quoted name>"``
    :param extensions: version by extension (reported, not compared)
    """

    major: int
    encoding: str
    locale: str
    objects: dict[str, Definition] = field(repr=False)
    extensions: dict[str, str] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """One hash over all objects; equal to an earlier one of the same side means that nothing changed."""
        whole = hashlib.sha256()
        for name in sorted(self.objects):
            whole.update(f"{name}\0{self.objects[name].sha256}\n".encode())
        return whole.hexdigest()

    def summary(self) -> dict[str, t.Any]:
        """For results and evidence: ``{"sha256", "objects", "major"}``."""
        return {"sha256": self.sha256, "objects": len(self.objects), "major": self.major}


@dataclass(frozen=True)
class Comparison:
    """What differs between two fingerprints.

    :param mismatches: ``{"object", "side", "problem"}``; any of them is a reason to stop
    :param not_compared: ``{"object", "reason"}``: what two majors print differently
    :param notes: facts worth a line in the report
    """

    mismatches: list[dict[str, str]]
    not_compared: list[dict[str, str]]
    notes: list[str]


def read_fingerprint(connection: Connection) -> Fingerprint:
    """Read one side's schema in one statement per kind of object, at one snapshot where the session is in one.

    :raises ClientError: the catalogs could not be read
    """
    database = client.query(connection, _DATABASE)[0]
    objects: dict[str, Definition] = {}
    for kind, statement in _QUERIES.items():
        if kind == "functions":
            # SQL-standard bodies exist since 14; before that the function itself does not.
            body = "pg_get_function_sqlbody(p.oid)" if database["major"] >= 14 else "NULL::text"
            statement = statement.replace("%(sql_body)s", body)
        for row in client.query(connection, statement):
            objects[f"{row['kind']} {row['name']}"] = Definition(canonical(row["facts"]), normalise(row["text"]))
    extensions = {row["extname"]: row["extversion"] for row in client.query(connection, "SELECT extname::text, extversion FROM pg_extension")}
    return Fingerprint(database["major"], database["encoding"], f"{database['collate']}/{database['ctype']}", objects, extensions)


def canonical(facts: dict[str, t.Any]) -> str:
    """Facts as JSON with sorted keys and without what is not set (pure)."""
    return json.dumps({name: value for name, value in facts.items() if value not in (None, "", [])}, sort_keys=True, ensure_ascii=False)


def normalise(text: str | None) -> str:
    """White space collapsed (pure)."""
    return "" if text is None else re.sub(r"\s+", " ", text).strip()


_TOKENS = re.compile(r"""('(?:[^']|'')*')|((?:"(?:[^"]|"")*"|[^\W\d][\w$]*)\.)(?=["\w*])|\s+""")


def unqualified(text: str) -> str:
    """A printed query without qualifiers and white space; literals stay as they are (pure)."""
    return _TOKENS.sub(lambda found: found.group(1) or "", text)


def compare_fingerprints(source: Fingerprint, target: Fingerprint) -> Comparison:
    """What differs (pure). An extension that only the target has, and an extension's version, are notes."""
    mismatches: list[dict[str, str]] = []
    not_compared: list[dict[str, str]] = []
    notes: list[str] = []
    if source.encoding != target.encoding:
        problem = f"the source has encoding {source.encoding}, the target {target.encoding}"
        mismatches.append({"object": "database", "side": "both", "problem": problem})
    if source.locale != target.locale:
        notes.append(f"The database's collation and ctype are {source.locale} on the source and {target.locale} on the target: rows may sort differently.")
    for name in sorted(source.objects.keys() | target.objects.keys()):
        here, there = source.objects.get(name), target.objects.get(name)
        if here is None and there is not None:
            if name.startswith("extension "):
                notes.append(f"{name} is only on the target.")
            else:
                mismatches.append({"object": name, "side": "target", "problem": "is not on the source"})
        elif there is None:
            mismatches.append({"object": name, "side": "target", "problem": "is missing on the target"})
        elif here is not None and here.facts != there.facts:
            mismatches.append({"object": name, "side": "both", "problem": _difference(name, here, there)})
        elif here is not None and here.text != there.text:
            if source.major == target.major:
                mismatches.append({"object": name, "side": "both", "problem": "has another definition on the target"})
            elif unqualified(here.text) != unqualified(there.text):
                reason = f"PostgreSQL {source.major} and {target.major} print its definition differently; name, owner, privileges and columns are equal"
                not_compared.append({"object": name, "reason": reason})
    for extension in sorted(source.extensions.keys() & target.extensions.keys()):
        if source.extensions[extension] != target.extensions[extension]:
            notes.append(f"extension {extension} is {source.extensions[extension]} on the source and {target.extensions[extension]} on the target.")
    return Comparison(mismatches, not_compared, notes)


def _difference(name: str, here: Definition, there: Definition) -> str:
    """In words, which facts differ (pure)."""
    source, target = json.loads(here.facts), json.loads(there.facts)
    differing = [fact for fact in sorted(source.keys() | target.keys()) if source.get(fact) != target.get(fact)]
    if name.split(" ", 1)[0] in NOT_SHOWN:
        return f"differs in {', '.join(differing)}"
    shown = [f"{fact} is {_show(source.get(fact))} on the source and {_show(target.get(fact))} on the target" for fact in differing]
    return "; ".join(shown)


def _show(value: t.Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
