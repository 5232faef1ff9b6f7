// The links in a dashboard's header. Core's component is not published; what fills in the URL is (the macros of scenes).
import React, { useEffect, useReducer } from 'react';
import { DataLinkBuiltInVars } from '@grafana/data';
import { LinkButton } from '@grafana/ui';
import { SceneObject, SceneVariableValueChangedEvent, sceneGraph } from '@grafana/scenes';

export function DashboardLinks({ links, scene }: { links: any[]; scene?: SceneObject }) {
  const [, redraw] = useReducer((count: number) => count + 1, 0);
  useEffect(() => {
    const range = scene && sceneGraph.getTimeRange(scene).subscribeToState(redraw);
    const values = scene?.subscribeToEvent(SceneVariableValueChangedEvent, redraw);
    return () => [range, values].forEach((one) => one?.unsubscribe());
  }, [scene]);
  if (!scene) return null;
  const url = (link: any) => {
    const carried = [
      link.includeVars && `\${${DataLinkBuiltInVars.includeVars}}`,
      link.keepTime && `\${${DataLinkBuiltInVars.keepTime}}`,
    ].filter(Boolean);
    const joined = carried.length ? `${link.url}${link.url.includes('?') ? '&' : '?'}${carried.join('&')}` : link.url;
    return sceneGraph.interpolate(scene, joined);
  };
  return (
    <div style={{ display: 'flex', gap: 8 }}>
      {links.map((link) => (
        <LinkButton
          key={link.title}
          data-harness-link={link.title}
          icon="apps"
          variant="secondary"
          fill="outline"
          href={url(link)}
          tooltip={link.tooltip}
          target={link.targetBlank ? '_blank' : undefined}
        >
          {link.title}
        </LinkButton>
      ))}
    </div>
  );
}
