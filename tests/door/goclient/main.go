// What Grafana's MySQL data source does with its driver: the same DSN, text and prepared queries, and a cancel.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"time"

	_ "github.com/go-sql-driver/mysql"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// The DSN of Grafana's pkg/tsdb/mysql.
func open(address, more string) *sql.DB {
	db, err := sql.Open("mysql", fmt.Sprintf(
		"grafana:x@tcp(%s)/gigawatch?collation=utf8mb4_unicode_ci&parseTime=true&loc=UTC&allowNativePasswords=true%s", address, more))
	check(err)
	return db
}

const values = `SELECT count(*) AS n, max(cost) AS money, min(at) AS at, 0.5::DOUBLE AS ratio, true AS yes,
 any_value(q) AS text, NULL AS none FROM (SELECT time AS at, (SELECT max(BilledCost) FROM billing) AS cost,
 (SELECT any_value(queue) FROM queue) AS q FROM gpu)`

func row(db *sql.DB, query string, arguments ...any) []any {
	var n int64
	var money, text string
	var at time.Time
	var ratio float64
	var yes bool
	var none sql.NullInt64
	check(db.QueryRow(query, arguments...).Scan(&n, &money, &at, &ratio, &yes, &text, &none))
	one := 0
	if yes {
		one = 1
	}
	var null any
	if none.Valid {
		null = none.Int64
	}
	return []any{n, money, at, ratio, one, text, null}
}

func main() {
	address, grafana := os.Args[1], os.Args[2]
	said := map[string]any{}
	db, interpolating := open(address, ""), open(address, "&interpolateParams=true")

	rows, err := db.Query(grafana)
	check(err)
	series := [][]any{}
	for rows.Next() {
		var at int64
		var value float64
		check(rows.Scan(&at, &value))
		series = append(series, []any{at, value})
	}
	check(rows.Err())
	said["grafana"] = series

	rows, err = db.Query(values)
	check(err)
	kinds, err := rows.ColumnTypes()
	check(err)
	types := map[string]string{}
	for _, kind := range kinds {
		types[kind.Name()] = kind.DatabaseTypeName()
	}
	check(rows.Close())
	said["types"] = types

	since, name := time.Unix(1767225600, 0).UTC(), `it's \ "quoted"`
	where := values + " WHERE q = ? AND at >= ? AND 1.5 > ? AND 7 DIV 2 = 3 AND ? < 10"
	said["text"] = row(db, values)
	said["binary"] = row(db, where, name, since, 1.25, 3)
	said["interpolated"] = row(interpolating, where, name, since, 1.25, 3)

	var count int
	var texts []string
	check(json.Unmarshal([]byte(os.Args[3]), &texts))
	for _, way := range []*sql.DB{db, interpolating} {
		for _, text := range texts {
			var back string
			check(way.QueryRow("SELECT ?, count(*) FROM gpu WHERE sku = ? AND 7 DIV 2 = 3", text, text).Scan(&back, &count))
			if back != text || count != 0 {
				said["injected"] = []any{text, back, count}
			}
		}
	}

	context, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	err = db.QueryRowContext(context, "SELECT count(*) FROM range(1000000000000) t(i) WHERE hash(i) = 1").Scan(&count)
	said["cancelled"] = fmt.Sprint(err)
	check(db.QueryRow("SELECT 1").Scan(&count))
	said["after"] = count

	check(json.NewEncoder(os.Stdout).Encode(said))
}
