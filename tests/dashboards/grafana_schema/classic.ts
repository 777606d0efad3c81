// What a file in dashboards/ may hold: Grafana's own types, closed where those are left open.
//
// Grafana types a panel's `options` and `fieldConfig.custom` as records of anything, for they belong to the plug-in of
// each panel, and an override's `value` as unknown.  Here a panel's `type` chooses the interfaces of its plug-in, and
// an override's `id` the type of its value.  A test puts each dashboard after `const dashboard: Classic =`, as a literal:
// of a literal TypeScript refuses properties that the type does not have.
import type { AnnotationQuery, Dashboard, DataQuery, FieldConfig, FieldConfigSource, Panel, VariableModel } from '@grafana/schema';
import type { DataLink, QueryVariableSpec } from '@grafana/schema/apis/dashboard.grafana.app/v2';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as stateTimeline from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as timeSeries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

/** A type as its values are in JSON: an enum of strings is the strings themselves. */
type Json<T> = T extends string
  ? `${T}`
  : T extends readonly (infer Item)[]
    ? Json<Item>[]
    : T extends object
      ? { [Key in keyof T]: Json<T[Key]> }
      : T;

/** `T` with some of its properties in place of those of the same names. */
type With<T, Own> = Omit<T, keyof Own> & Own;

/**
 * A question to the built-in MySQL data source.  No package publishes a type for more than `DataQuery` of it: the other
 * four are what Grafana saves, by its guide of the data source.
 */
type Question = DataQuery & { editorMode: 'code'; format: 'table' | 'time_series'; rawQuery: true; rawSql: string };

type Standard = With<FieldConfig, { links?: DataLink[] }>;

/** Names of overrides and their values: a standard option's by its own name, a panel's after `custom.`. */
type Property<Custom> =
  | { [Key in keyof Standard & string]-?: { id: Key; value: NonNullable<Standard[Key]> } }[Exclude<keyof Standard & string, 'custom'>]
  | { [Key in keyof Custom & string]-?: { id: `custom.${Key}`; value: NonNullable<Custom[Key]> } }[keyof Custom & string]
  // Up to Grafana 12.1 this hid a column of a table; since then `hideFrom` does.  The dashboards say both.
  | { id: 'custom.hidden'; value: true };

type Fields<Custom> = {
  defaults: With<Standard, { custom?: Custom }>;
  overrides: With<FieldConfigSource['overrides'][number], { properties: Property<Custom>[] }>[];
};

type Shown<Type extends string, Options, Custom> = With<
  Panel,
  { type: Type; options: Options; fieldConfig: Fields<Custom>; targets: Question[] }
>;

type Shape =
  | Shown<'stat', stat.Options, Record<string, never>>
  | Shown<'state-timeline', stateTimeline.Options, stateTimeline.FieldConfig>
  | Shown<'table', table.Options, table.FieldConfig>
  | Shown<'timeseries', timeSeries.Options, timeSeries.FieldConfig>;

/** `definition` is what Grafana shows of a query in the list of variables; only its types of version 2 have it. */
type Variable = With<VariableModel, { type: 'query'; query: string }> & Pick<QueryVariableSpec, 'definition'>;

export type Classic = Json<
  With<
    Dashboard,
    {
      annotations: { list: AnnotationQuery<Question>[] };
      templating: { list: Variable[] };
      panels: Shape[];
    }
  >
>;
