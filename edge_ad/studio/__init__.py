"""The Studio: from camera to verdict in a browser, for people who do not type commands.

Pages only: everything that they do is a public function of `edge_ad.project`, `edge_ad.train`,
`edge_ad_export` or `edge_ad_runtime`, or a command line of `edge-ad` in a process of its own.
"""
