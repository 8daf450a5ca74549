// Draws the plots of a page from the JSON that stands in it, anew when the theme changes. Texts from the data reach the page as text
// nodes or on a canvas, never as markup.
'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const root = document.documentElement;
  const color = name => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  const number = n => n.toLocaleString('en-US');
  const percent = share => `${(100 * share).toFixed(1)}%`;

  // Plots by the id of their element: what makes their options, and the library's object.
  const plots = [];
  const add = (id, options) => {
    const element = document.getElementById(id);
    if (element) plots.push({ element, options });
  };

  const element = (tag, text, className) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };

  const tooltip = () => ({
    confine: true, backgroundColor: color('surface'), borderColor: color('line'), borderWidth: 1, padding: [8, 12],
    textStyle: { color: color('ink'), fontSize: 13, fontFamily: color('sans') },
    extraCssText: 'border-radius:8px;box-shadow:0 4px 18px rgba(0,0,0,.18)',
  });

  // A tooltip's content: a title, and a line for each value.
  const lines = (title, values) => {
    const box = element('div', undefined, 'lines');
    box.append(element('b', title));
    for (const [name, value] of values) {
      const line = element('div');
      line.append(element('span', `${name} `), element('b', value));
      box.append(line);
    }
    return box;
  };

  const axis = more => ({
    axisLine: { lineStyle: { color: color('line') } }, axisTick: { show: false },
    axisLabel: { color: color('soft'), fontSize: 11, hideOverlap: true },
    splitLine: { lineStyle: { color: color('faint') } },
    nameTextStyle: { color: color('soft'), fontSize: 11 }, ...more,
  });
  const base = () => ({
    animation: false, textStyle: { fontFamily: color('sans') },
    grid: { left: 4, right: 14, top: 34, bottom: 24, containLabel: true },
    legend: { top: 0, left: 0, itemWidth: 16, itemHeight: 8, textStyle: { color: color('soft'), fontSize: 12 } },
  });

  // ---- The map of a run ----

  const mix = (from, to, share) => {
    const parts = hex => [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16));
    const [a, b] = [parts(from), parts(to)];
    return `rgb(${a.map((x, i) => Math.round(x + (b[i] - x) * share)).join(',')})`;
  };

  const clusterTip = i => {
    const { rows, chosen, labels } = data.clusters[i];
    const box = element('div', undefined, 'tip');
    box.append(element('b', data.words[i].join(' ')));
    box.append(element('p', `${number(chosen)} of ${number(rows)} rows chosen, ${percent(chosen / rows)}`));
    if (labels.length) {
      box.append(element('p', labels.map(([label, count]) => `${label} ${Math.round(100 * count / rows)}%`).join(' · '), 'soft'));
    }
    const list = element('ul');
    for (const { text, label } of data.map.clusters[i].samples) {
      const item = element('li', text);
      if (label !== undefined) item.append(element('span', label, 'soft'));
      list.append(item);
    }
    box.append(list);
    return box;
  };

  // The first word of every cluster that has room for it; the largest clusters come first.
  const words = (scale, size) => {
    const pen = document.createElement('canvas').getContext('2d');
    pen.font = `600 ${size}px ${color('sans')}`;
    const placed = [];
    const order = data.map.clusters.map((_, i) => i).sort((a, b) => data.map.clusters[b].radius - data.map.clusters[a].radius);
    for (const i of order) {
      const { x, y } = data.map.clusters[i];
      const name = (data.words[i][0] ?? '').slice(0, 18);
      const [halfWidth, halfHeight] = [pen.measureText(name).width / 2 + 3, size / 2 + 3];
      const free = placed.every(other =>
        Math.abs(x - other.value[0]) * scale > halfWidth + other.halfWidth || Math.abs(y - other.value[1]) * scale > 2 * halfHeight);
      if (free && name) placed.push({ name, value: [x, y], halfWidth });
    }
    return placed;
  };

  const map = plot => {
    const { clusters, rows } = data.map;
    const side = 4095;
    const width = plot.element.clientWidth;
    const scale = (width - 24) / side;
    const share = i => data.clusters[i].chosen / data.clusters[i].rows;
    const most = Math.max(1e-9, ...clusters.map((_, i) => share(i)));
    const end = document.getElementById('ramp-end');
    if (end) end.textContent = percent(most);
    // Dots as large as their discs have room for.
    const size = Math.min(6, Math.max(1, 0.75 * Math.sqrt(0.3 / rows.x.length) * width));
    const taken = new Set(rows.chosen);
    const points = keep => {
      const count = keep ? rows.chosen.length : rows.x.length - rows.chosen.length;
      const flat = new Float32Array(2 * count);
      let at = 0;
      for (let i = 0; i < rows.x.length; i++) {
        if (taken.has(i) === keep) {
          flat[at++] = rows.x[i];
          flat[at++] = rows.y[i];
        }
      }
      return flat;
    };
    const dots = (name, keep, z) => ({
      type: 'scatter', name, silent: true, large: rows.x.length > 15000, largeThreshold: 0, progressive: 0, z, dimensions: ['x', 'y'],
      data: points(keep), symbolSize: keep ? Math.max(1.6, 1.15 * size) : size, tooltip: { show: false },
      itemStyle: { color: color(keep ? 'accent' : 'dot'), opacity: keep ? 1 : 0.75 },
    });
    const hidden = { type: 'value', min: 0, max: side, show: false };
    return {
      animation: false, textStyle: { fontFamily: color('sans') },
      hoverLayerThreshold: Infinity,
      grid: { left: 12, right: 12, top: 12, bottom: 12 },
      xAxis: hidden, yAxis: hidden,
      // On a phone there is no room beside the disc, so that what it says stands below the map.
      tooltip: { ...tooltip(), ...(width < 500 && { confine: false, position: [0, width + 6] }), trigger: 'item', formatter: ({ dataIndex, seriesName }) => seriesName === 'clusters' ? clusterTip(dataIndex) : '' },
      series: [
        {
          type: 'scatter', name: 'clusters', z: 1, dimensions: ['x', 'y'],
          data: clusters.map(({ x, y, radius }, i) => ({
            value: [x, y], symbolSize: Math.max(6, 2 * radius * scale + 3),
            itemStyle: { color: mix(color('disc-low'), color('disc-high'), Math.sqrt(share(i) / most)), borderColor: color('line'), borderWidth: 1 },
          })),
          emphasis: { scale: false, itemStyle: { borderColor: color('accent'), borderWidth: 2 } },
        },
        dots('rows', false, 2),
        dots('chosen', true, 3),
        {
          type: 'scatter', name: 'words', silent: true, z: 4, symbolSize: 1, itemStyle: { color: 'transparent', opacity: 1 }, tooltip: { show: false },
          data: words(scale, width < 500 ? 10 : 12),
          label: {
            show: true, position: 'inside', formatter: '{b}', color: color('ink'), fontSize: width < 500 ? 10 : 12, fontWeight: 600,
            textBorderColor: color('surface'), textBorderWidth: 3,
          },
        },
      ],
    };
  };

  // ---- The learning curves of a run ----

  const line = (name, points, more) => ({ type: 'line', name, data: points, showSymbol: points.length === 1, symbolSize: 6, lineStyle: { width: 2 }, ...more });
  const against = (xName, series, digits) => ({
    ...base(),
    tooltip: { ...tooltip(), trigger: 'axis', formatter: points => lines(`${number(points[0].value[0])} evaluations`, points.map(({ seriesName, value }) => [seriesName, value[1].toFixed(digits)])) },
    xAxis: axis({ type: 'value', name: xName, nameLocation: 'middle', nameGap: 24, min: 0, max: data.evaluations }),
    yAxis: axis({ type: 'value', scale: true }),
    series,
  });

  const best = () => {
    const points = data.curves.filter(({ event }) => event === 'best');
    const column = name => {
      const column = points.map(point => [point.evaluations, point[name]]);
      if (column.length) column.push([data.evaluations, column[column.length - 1][1]]);
      return column;
    };
    const step = (name, key, paint) => line(name, column(key), { step: 'end', itemStyle: { color: paint }, lineStyle: { color: paint, width: 2 } });
    return against('evaluations', [
      step('reward fold, searched on', 'reward', color('accent')),
      step('confirm fold, unseen', 'confirm', color('everything')),
    ], 4);
  };

  const episodes = key => {
    const points = data.curves.filter(point => point.event === 'episode' && point[key] !== null).map(point => [point.evaluations, point[key]]);
    const window = Math.max(1, Math.round(points.length / 25));
    let sum = 0;
    const mean = points.map(([x, y], i) => {
      sum += y - (i >= window ? points[i - window][1] : 0);
      return [x, sum / Math.min(i + 1, window)];
    });
    return [points, mean, window];
  };
  const smoothed = (key, digits, paint) => () => {
    const [points, mean, window] = episodes(key);
    const faint = line('each episode', points, { itemStyle: { color: color('random') }, lineStyle: { color: color('random'), width: 1, opacity: 0.5 } });
    const clear = line(window > 1 ? `mean of ${window}` : 'each episode', mean, { itemStyle: { color: color(paint) }, lineStyle: { color: color(paint), width: 2 } });
    return against('evaluations', window > 1 ? [faint, clear] : [clear], digits);
  };

  if (data.map) add('map', map);
  if (data.curves) {
    add('best', best);
    add('returns', smoothed('return', 4, 'accent'));
    add('loss', smoothed('loss', 5, 'everything'));
  }

  // ---- The plots of a study ----

  const families = ['agent', 'search', 'heuristic', 'control', 'given'];
  const cost = ({ points }) => () => ({
    ...base(),
    grid: { left: 4, right: 34, top: 44, bottom: 24, containLabel: true },
    tooltip: { ...tooltip(), trigger: 'item', formatter: ({ data: { name, value } }) => lines(name, [['score', value[1].toFixed(4)], ['seconds', value[0].toPrecision(3)]]) },
    xAxis: axis({ type: 'log', name: 'seconds', nameLocation: 'middle', nameGap: 24 }),
    yAxis: axis({ type: 'value', scale: true }),
    series: families.filter(family => points.some(point => point.family === family)).map(family => ({
      type: 'scatter', name: family, symbolSize: 11, itemStyle: { color: color(family) },
      data: points.filter(point => point.family === family).map(point => ({
        name: point.method, value: [Math.max(point.seconds, 1e-3), point.score],
        // Those are named that no cheaper choice beats; everything is no choice.
        label: { show: !points.some(other => other.method !== 'everything' && other.seconds < point.seconds && other.score >= point.score), position: 'top', formatter: '{b}', color: color('soft'), fontSize: 11 },
      })),
    })),
  });
  const overBudgets = () => ({
    ...base(),
    grid: { left: 4, right: 14, top: 34, bottom: 4, containLabel: true },
    legend: { ...base().legend, type: 'scroll' },
    tooltip: { ...tooltip(), trigger: 'axis', formatter: points => lines(points[0].axisValue, points.filter(({ value }) => value !== null && value !== undefined).map(({ seriesName, value }) => [seriesName, value.toFixed(4)])) },
    xAxis: axis({ type: 'category', data: data.budgets }),
    yAxis: axis({ type: 'value', scale: true }),
    series: data.lines.map(({ method, family, scores }, i) => ({
      type: 'line', name: method, data: scores, symbolSize: 7, symbol: ['circle', 'rect', 'triangle', 'diamond'][i % 4],
      itemStyle: { color: color(family) }, lineStyle: { color: color(family), width: 2, type: ['solid', 'dashed', 'dotted'][i % 3] },
    })),
  });
  if (data.costs) {
    data.costs.forEach((budget, i) => add(`cost-${i}`, cost(budget)));
    if (data.budgets.length > 1) add('budgets', overBudgets);
  }

  // ---- Drawing ----

  const draw = plot => plot.chart.setOption(plot.options(plot), true);
  for (const plot of plots) {
    plot.chart = echarts.init(plot.element, null, { renderer: 'canvas' });
    draw(plot);
    plot.width = plot.element.clientWidth;
    new ResizeObserver(() => {
      if (plot.width === plot.element.clientWidth) return;
      plot.width = plot.element.clientWidth;
      plot.chart.resize();
      draw(plot);
    }).observe(plot.element);
  }
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => plots.forEach(draw));
  // How many milliseconds after the page began to load its plots stood on the screen; for tests.
  requestAnimationFrame(() => requestAnimationFrame(() => { root.dataset.drawn = Math.round(performance.now()); }));
})();
